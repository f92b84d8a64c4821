"""Embed texts with a hosted model under two limits, one a month and one for a call. Needs OPENAI_API_KEY."""

from embedway import Config, Embedder
from embedway.errors import BudgetExceededError

texts = ["Rotate a log file at 10 MB.", "Retry a request that timed out."]
config = Config.load(overrides={"budgets.example": {"usd": "5", "period": "month"}})
with Embedder("text-embedding-3-small", config=config) as embedder:
    plan = embedder.plan(texts)  # spends nothing
    print(f"plan: {plan.billed_tokens} tokens, ${plan.cost_usd:f}")
    receipt = embedder.embed_documents(texts, max_cost="0.01").receipt
    print(f"paid: ${receipt.cost_usd:f} for {receipt.billed_tokens} tokens")
    try:
        embedder.embed_documents("A new text.", max_cost="0")
    except BudgetExceededError as error:
        print(f"refused: {error}")
