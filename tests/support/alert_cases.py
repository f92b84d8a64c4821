"""Series of metrics, and the minutes at which alerts must or must not fire on them, for promtool."""

import dataclasses

REQUESTS = 'embedway_requests_total{{job="j",instance="{0}",model="m",task="embed",outcome="{1}"}}'
ATTEMPTS = 'embedway_attempts_total{{job="j",instance="{0}",model="m",route="r",outcome="{1}"}}'
QUANTILE = '{{job="j",instance="a",{0},le="{1}"}}'
RESERVED = 'embedway_reservations_total{{job="j",instance="{0}",outcome="ok"}}'
RATIO = 'embedway_budget_spent_ratio{{job="j",instance="{0}",budget="b"}}'
REFUSALS = 'embedway_budget_refusals_total{job="j",instance="a",budget="b"}'
STORE = 'embedway_store_errors_total{{job="j",instance="{0}",store="{1}",action="read"}}'
FAILURES = 'embedway_validation_failures_total{job="j",instance="a",route="r",check="zero"}'
ROUTE = '{job="j",instance="a",model="m",route="r"}'
CHECKED = 'embedway_drift_check_timestamp_seconds{{job="j",instance="{0}",model="m",route="r",result="{1}"}}'
RUN = '{metric}{{job="node",instance="a",run="{run}"}}'
GATEWAY = 'embedway_gateway_requests_total{{job="j",instance="{0}",path="{1}",status="{2}"}}'
GATEWAY_REFUSED = 'embedway_gateway_refused_requests_total{{job="j",instance="a",code="{0}"}}'
GATEWAY_STARTS = 'embedway_gateway_process_starts_total{{job="j",instance="a",process="{0}"}}'
EMBEDDINGS, READY = "/v1/embeddings", "/health/ready"
WAITING = 'embedway_waiting{{job="j",instance="{0}",reason="scheduler",route="r"}}'


@dataclasses.dataclass(frozen=True)
class Case:
    """Series, one value a minute in promtool's notation, and whether an alert fires at some minutes."""

    alert: str
    name: str
    series: dict[str, str]
    fires: dict[int, bool]


def slow(metric, labels, upper):
    """Return series of a histogram whose values are all between 10 and 30 s, or below `upper`."""
    counts = {le: "0+0x60" if float(le) < upper else "0+60x60" for le in ("1", "10", "30", "+Inf")}
    return {metric + QUANTILE.format(labels, le): values for le, values in counts.items()}


CASES = [
    Case(
        "EmbedwayCallsFail",
        "a tenth of the calls of two processes fail",
        {
            REQUESTS.format("a", "ok"): "0+60x60",
            REQUESTS.format("b", "ok"): "0+30x60",
            REQUESTS.format("b", "UnavailableError"): "0+10x60",
        },
        {4: False, 12: True},
    ),
    Case(
        "EmbedwayCallsFail",
        "less than 5 % of the calls of all processes fail, and more of one of them",
        {
            REQUESTS.format("a", "ok"): "0+60x60",
            REQUESTS.format("b", "ok"): "0+60x60",
            REQUESTS.format("b", "UnavailableError"): "0+4x60",
        },
        {30: False},
    ),
    Case(
        "EmbedwayCallsFail",
        "the caller's mistakes, and calls that a budget refused, are not failures",
        {
            REQUESTS.format("a", "ok"): "0+60x60",
            REQUESTS.format("a", "BudgetExceededError"): "0+60x60",
            REQUESTS.format("a", "TextTooLongError"): "0+60x60",
        },
        {30: False},
    ),
    Case(
        "EmbedwayCallsFail",
        "a failure that ends before its time, and no calls at all",
        {
            REQUESTS.format("a", "ok"): "0+60x60",
            REQUESTS.format("a", "UnavailableError"): "0x10 40+0x50",
            REQUESTS.format("b", "ok"): "5x60",
        },
        {12: False, 20: False, 50: False},
    ),
    Case(
        "EmbedwaySlowCalls",
        "all calls take more than 10 s",
        slow("embedway_request_seconds_bucket", 'model="m",task="embed"', 30),
        {8: False, 15: True},
    ),
    Case(
        "EmbedwaySlowCalls",
        "all calls take less than a second",
        slow("embedway_request_seconds_bucket", 'model="m",task="embed"', 1),
        {30: False},
    ),
    Case(
        "EmbedwayRouteFails",
        "a third of the requests fail, and a counter starts again",
        {ATTEMPTS.format("a", "ok"): "900+20x10 0+20x50", ATTEMPTS.format("a", "UnavailableError"): "0+10x60"},
        {4: False, 12: True, 30: True},
    ),
    Case(
        "EmbedwayRouteFails",
        "rate limits and refused texts are not failures of the route",
        {
            ATTEMPTS.format("a", "ok"): "0+20x60",
            ATTEMPTS.format("a", "RateLimitedError"): "0+20x60",
            ATTEMPTS.format("a", "RefusedInputError"): "0+20x60",
        },
        {30: False},
    ),
    Case(
        "EmbedwayRouteHasNoSuccess",
        "there is no series of successes",
        {ATTEMPTS.format("a", "UnavailableError"): "0+10x60"},
        {4: False, 10: True},
    ),
    Case(
        "EmbedwayRouteHasNoSuccess",
        "another process succeeds; or nothing is sent",
        {ATTEMPTS.format("a", "UnavailableError"): "0+10x30 300x30", ATTEMPTS.format("b", "ok"): "0+1x30 30x30"},
        {20: False, 55: False},
    ),
    Case(
        "EmbedwayKeyRefused",
        "the first failure of a process that has run for an hour",
        {ATTEMPTS.format("a", "AuthenticationError"): "_x60 1x30"},
        {59: False, 62: True, 75: False},
    ),
    Case(
        "EmbedwayCircuitOpen",
        "open, with probes, while there are calls",
        {
            'embedway_circuit_state{job="j",instance="a",route="r"}': "0x5 2 2 1 2x60",
            REQUESTS.format("a", "ok"): "0+9x90",
        },
        {13: False, 20: True},
    ),
    Case(
        "EmbedwayCircuitOpen",
        "closed again after a minute; or no calls",
        {
            'embedway_circuit_state{job="j",instance="a",route="r"}': "0x5 2 0x20 2x60",
            REQUESTS.format("a", "ok"): "0+9x15 135x90",
        },
        {12: False, 60: False},
    ),
    Case(
        "EmbedwayLongWaits",
        "all waits take more than 10 s",
        slow("embedway_wait_seconds_bucket", 'reason="retry",route="r"', 30),
        {8: False, 15: True},
    ),
    Case(
        "EmbedwayQueueGrows",
        "two processes with queues that grow",
        {WAITING.format("a"): "0+1.9x60", WAITING.format("b"): "0+1.9x60"},
        {15: False, 25: True},
    ),
    Case(
        "EmbedwayQueueGrows",
        "a long queue that becomes shorter, and a short one that grows",
        {WAITING.format("a"): "900-9x60", WAITING.format("b").replace('"r"', '"s"'): "0+1x40 40x20"},
        {30: False},
    ),
    Case(
        "EmbedwayBudgetNearlySpent",
        "a process that spends",
        {RATIO.format("a"): "0.5x10 0.95x50", RESERVED.format("a"): "0+1x60"},
        {11: False, 13: True},
    ),
    Case(
        "EmbedwayBudgetNearlySpent",
        "an idle process still has the value of the last period",
        {
            RATIO.format("a"): "0.95x180",
            RESERVED.format("a"): "7x180",
            RATIO.format("b"): "0.1x180",
            RESERVED.format("b"): "0+1x180",
        },
        {90: False, 170: False},
    ),
    Case(
        "EmbedwayBudgetNearlySpent",
        "the first call of a process",
        {RATIO.format("a"): "_x60 0.95x90", RESERVED.format("a"): "_x60 1x90"},
        {60: False, 63: True, 140: False},
    ),
    Case("EmbedwayBudgetRefuses", "the first refusal", {REFUSALS: "_x60 1x30"}, {59: False, 62: True, 75: False}),
    Case("EmbedwayBudgetRefuses", "a further refusal", {REFUSALS: "7x60 8x30"}, {30: False, 62: True, 75: False}),
    Case(
        "EmbedwayLedgerFails",
        "a ledger that fails",
        {STORE.format("a", "ledger"): "_x60 1+1x30"},
        {60: False, 63: True},
    ),
    Case(
        "EmbedwayLedgerFails", "a cache that fails", {STORE.format("a", "cache"): "_x60 1+1x30"}, {63: False, 80: False}
    ),
    Case("EmbedwayLedgerFails", "one failure", {STORE.format("a", "ledger"): "_x60 1x30"}, {60: False, 63: True}),
    Case("EmbedwayCacheFails", "one failure", {STORE.format("a", "cache"): "_x60 1x30"}, {63: False, 68: True}),
    Case(
        "EmbedwayCacheFails",
        "the caches of two processes fail",
        {STORE.format("a", "cache"): "_x60 1+1x30", STORE.format("b", "cache"): "3x60 3+1x30"},
        {59: False, 63: False, 70: True},
    ),
    Case("EmbedwayVectorsRefused", "one answer", {FAILURES: "_x60 2x30"}, {59: False, 62: True, 75: False}),
    Case(
        "EmbedwayVectorsDiffer",
        "a check fails until a check of another process passes",
        {
            CHECKED.format("a", "passed"): "60x200",
            CHECKED.format("a", "failed"): "_x90 5400x110",
            CHECKED.format("b", "passed"): "_x180 10800x20",
        },
        {89: False, 92: True, 175: True, 182: False},
    ),
    Case(
        "EmbedwayVectorsDiffer",
        "the first check fails, and again after one that passed",
        {
            CHECKED.format("a", "failed"): "_x10 600x30 2400x60",
            CHECKED.format("a", "passed"): "_x20 1200x80",
        },
        {9: False, 12: True, 25: False, 45: True},
    ),
    Case(
        "EmbedwayAccuracyLow",
        "a drop",
        {
            f"embedway_accuracy_ratio{ROUTE}": "1x10 0.7x20",
            CHECKED.format("a", "passed"): "60x30",
            CHECKED.format("a", "failed"): "_x10 600x20",
        },
        {9: False, 14: True},
    ),
    Case(
        "EmbedwayAccuracyLow",
        "a lower limit in the settings; canaries that differ",
        {
            f"embedway_accuracy_ratio{ROUTE}": "0.7x20 1x20",
            CHECKED.format("a", "passed"): "60x40",
            CHECKED.format("a", "failed"): "_x20 1200x20",
        },
        {14: False, 30: False},
    ),
    Case(
        "EmbedwayRouteInQuarantine",
        "set; and ended by another process",
        {
            f"embedway_quarantined{ROUTE}": "0x10 1x40",
            CHECKED.format("a", "failed"): "_x10 600x40",
            CHECKED.format("b", "passed"): "60x30 1800x20",
        },
        {9: False, 14: True, 40: False},
    ),
    Case(
        "EmbedwayMemoryHigh",
        "memory grows",
        {'embedway_resident_memory_bytes{job="j",instance="a"}': "1e9x10 9e9x50"},
        {15: False, 25: True},
    ),
    Case(
        "EmbedwayJobFailed",
        "a run fails, and the next one is completed",
        {RUN.format(metric="embedway_run_success", run="a"): "1x10 0x10 1x10"},
        {9: False, 12: True, 25: False},
    ),
    Case(
        "EmbedwayJobFailed",
        "one of two jobs fails",
        {RUN.format(metric="embedway_run_success", run=run): f"{value}x30" for run, value in (("a", 1), ("b", 0))},
        {5: True},
    ),
    Case(
        "EmbedwayJobStale",
        "the last run ended two days before",
        {RUN.format(metric="embedway_run_end_timestamp_seconds", run="a"): "-172200x60"},
        {5: False, 15: True},
    ),
    Case(
        "EmbedwayJobStale",
        "a run ends in time",
        {RUN.format(metric="embedway_run_end_timestamp_seconds", run="a"): "-172200x5 300x60"},
        {15: False, 60: False},
    ),
    Case(
        "EmbedwayGatewayFails",
        "a tenth of the requests to two gateways fail, also while probes outnumber them",
        {
            GATEWAY.format("a", EMBEDDINGS, "200"): "0+60x60",
            GATEWAY.format("b", EMBEDDINGS, "200"): "0+30x60",
            GATEWAY.format("b", EMBEDDINGS, "502"): "0+10x60",
            GATEWAY.format("a", READY, "200"): "0+1000x60",
        },
        {4: False, 12: True},
    ),
    Case(
        "EmbedwayGatewayFails",
        "mistakes of callers and refusals are no failures",
        {
            GATEWAY.format("a", EMBEDDINGS, "200"): "0+60x60",
            GATEWAY.format("a", EMBEDDINGS, "400"): "0+60x60",
            GATEWAY.format("a", EMBEDDINGS, "503"): "0+60x60",
            GATEWAY.format("a", READY, "503"): "0+60x60",
        },
        {30: False},
    ),
    Case(
        "EmbedwayGatewayRefuses",
        "a tenth is refused by the queue",
        {
            GATEWAY.format("a", EMBEDDINGS, "200"): "0+90x60",
            GATEWAY.format("a", EMBEDDINGS, "503"): "0+10x60",
            GATEWAY_REFUSED.format("overloaded"): "0+10x60",
        },
        {4: False, 12: True},
    ),
    Case(
        "EmbedwayGatewayRefuses",
        "wrong keys, and a short peak",
        {
            GATEWAY.format("a", EMBEDDINGS, "200"): "0+90x60",
            GATEWAY_REFUSED.format("invalid_api_key"): "0+90x60",
            GATEWAY_REFUSED.format("overloaded"): "0x10 50+0x49",
        },
        {12: False, 30: False},
    ),
    Case(
        "EmbedwayGatewayNotReady",
        "every probe of one of two gateways fails",
        {
            GATEWAY.format("a", READY, "200"): "0+30x20 600x40",
            GATEWAY.format("a", READY, "503"): "0x20 0+30x40",
            GATEWAY.format("b", READY, "200"): "0+30x60",
        },
        {15: False, 30: True},
    ),
    Case(
        "EmbedwayGatewayNotReady",
        "one of the workers was not ready at its start",
        {GATEWAY.format("a", READY, "200"): "0+30x60", GATEWAY.format("a", READY, "503"): "0 5 5x58"},
        {2: False, 5: False, 30: False},
    ),
    Case(
        "EmbedwayGatewayRestarts",
        "a process ends every two minutes",
        {GATEWAY_STARTS.format("inference"): "1 1 2 2 3 3 4 4 5 5 6 6 7"},
        {2: False, 10: True},
    ),
    Case(
        "EmbedwayGatewayRestarts",
        "the gateway is started, and each of its processes ends once",
        {GATEWAY_STARTS.format("inference"): "_ 1x10 2x30", GATEWAY_STARTS.format("worker0"): "_ 1x10 2x30"},
        {5: False, 12: False, 20: False},
    ),
]


def document(*rule_files):
    """Return the input of `promtool test rules`."""
    tests = []
    for case in CASES:
        selector = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
        checks = [
            {
                "expr": f"count({selector}) or vector(0)",
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
            for minute, fires in case.fires.items()
        ]
        series = [{"series": name, "values": values} for name, values in case.series.items()]
        tests.append(
            {"name": f"{case.alert}: {case.name}", "interval": "1m", "input_series": series, "promql_expr_test": checks}
        )
    return {"rule_files": [*map(str, rule_files)], "evaluation_interval": "1m", "tests": tests}
