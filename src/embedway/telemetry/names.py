"""Every metric's name. Labels hold names of models and budgets, never texts or keys."""

BUDGET_WARNINGS = "embedway_budget_warnings"
BUDGET_REFUSALS = "embedway_budget_refusals"
BUDGET_SPENT = "embedway_budget_spent_ratio"
