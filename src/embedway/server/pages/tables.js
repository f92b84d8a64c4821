// The data of `GET /overview.json` as numbers and tables.

const N = "number";
const COLUMNS = {
  minutes: [["From", ""], ["Requests", N], ["Failed", N], ["Texts", N], ["From the cache", N], ["Highest p50", N], ["Highest p99", N]],
  models: [["Model", ""], ["Task", ""], ["Computed by", ""], ["State", ""], ["Requests", N], ["Texts", N], ["Tokens", N], ["From cache", N], ["Cost", N], ["Saved", N]],
  budgets: [["Budget", ""], ["Counts", ""], ["Spent", ""], ["Left", N]],
  routes: [["Route", ""], ["Model", ""], ["State", ""]],
  inference: [["Model", ""], ["State", ""], ["Memory", N], ["Last use", N], ["Jobs", N], ["Runtime", ""]],
  recent: [["Time", ""], ["Path", "code"], ["Answer", ""], ["Took", N], ["Texts", N], ["Model", ""], ["Key", ""], ["Request", "code"]],
};

function show(data) {
  showNow(data);
  drawCharts(data.history);
  const rows = {
    minutes: minuteRows(data.history),
    models: modelRows(data),
    budgets: data.budgets.map(budgetRow),
    routes: data.routes.map(routeRow),
    inference: (data.inference?.models ?? []).map(residentRow),
    recent: data.remembered.map(requestRow),
  };
  for (const [id, found] of Object.entries(rows)) fillTable($(id), COLUMNS[id], found);
  put($("models-note"), plural(data.served.length, "model"));
  fillPairs($("spending"), data.spending.map((one) => [periodName(one.period), [dollars(one.spent_usd), { note: `${dollars(one.saved_usd)} saved` }]]));
  put($("budgets-note"), budgetsNote(data));
  put($("routes-note"), rows.routes.length ? "" : "No model was used yet. A route appears with the first request.");
  put($("inference-note"), inferenceNote(data));
  put($("recent-note"), rows.recent.length ? "" : "None. Failed requests, and those over one second, appear here.");
}

function showNow(data) {
  const { recent, history } = data;
  const last = history.slice(-3, -1);
  const rate = last.reduce((sum, one) => sum + one.requests, 0) / (last.length * PERIOD_S);
  const total = (name) => data.models.reduce((sum, one) => sum + Number(one[name]), 0);
  const ten = { note: "in 10 minutes" };
  fillPairs($("tiles"), [
    ["Requests", [`${number(rate, 1)}/s`, { note: `${number(recent.requests)} in 10 min` }]],
    ["Latency p50", [milliseconds(recent.p50_ms), ten]],
    ["Latency p99", [milliseconds(recent.p99_ms), ten]],
    ["Failed", [share(recent.failed, recent.requests), { note: `${number(recent.failed)} in 10 minutes` }]],
    ["From the cache", [share(recent.hits, recent.texts), { note: `of ${plural(recent.texts, "text")}` }]],
    ["Running", [number(data.running), { note: `${number(data.waiting)} waiting` }]],
    ["Spent", [dollars(total("cost_usd")), { note: "since the start" }]],
    ["Saved by cache", [dollars(total("saved_usd")), { note: "since the start" }]],
  ]);
  const up = data.started === null ? "starting" : `up ${duration(data.time - data.started)}`;
  const all = plural(Math.max(data.workers, data.configured_workers), "process", "processes");
  const processes = data.workers < data.configured_workers ? `${data.workers} of ${all}` : all;
  put($("facts"), `version ${data.version} · ${processes} · ${up} · ${plural(data.requests, "request")}`);
}

function modelRows(data) {
  const counts = new Map(data.models.map((one) => [one.model, one]));
  const served = data.served.map((one) => [one, counts.get(one.model)]);
  const names = new Set(data.served.map((one) => one.model));
  const others = data.models.filter((one) => !names.has(one.model)).map((one) => [{ model: one.model, task: "", kind: "" }, one]);
  const all = [...served, ...others].sort(([, a], [, b]) => (b?.requests ?? 0) - (a?.requests ?? 0));
  return all.map(([one, found]) => {
    const numbers = found
      ? [number(found.requests), number(found.texts), number(found.tokens), share(found.hits, found.texts), dollars(found.cost_usd), dollars(found.saved_usd)]
      : ["0", "0", "0", "–", "–", "–"];
    const name = one.default ? [`${one.model} `, { pill: "plain", text: "default" }] : one.model;
    return [name, one.task, { local: "this machine", service: "a service" }[one.kind] ?? "–", modelState(one, data), ...numbers];
  });
}

function modelState(one, data) {
  if (one.kind === "service") {
    const routes = data.routes.filter((route) => route.model === one.model);
    const good = routes.filter((route) => !routeFault(route)).length;
    if (!routes.length) return "not used yet";
    return { pill: good === routes.length ? "good" : good ? "warn" : "bad", text: `${good} of ${plural(routes.length, "route")}` };
  }
  const resident = data.inference?.models.find((found) => found.model === one.model);
  if (resident) return { pill: resident.state === "loaded" ? "good" : "warn", text: resident.state };
  return data.in_worker.includes(one.model) ? { pill: "good", text: "open" } : "not loaded";
}

function periodName(period) {
  if (period === "total") return "All time";
  return period.length > 7 ? `Today, ${period} UTC` : `This month, ${period}`;
}

function budgetRow(one) {
  const limit = Number(one.limit_usd), spent = Number(one.spent_usd), held = Number(one.held_usd);
  const part = limit ? spent / limit : 1;
  const tone = part >= 1 ? "bad" : part >= 0.8 ? "warn" : "";
  const text = limit ? `${dollars(spent)} of ${dollars(limit)}, ${share(spent, limit)}` : `${dollars(spent)}; the limit is $0`;
  const scope = one.scope === "*" ? "everything" : one.scope.replace(":", " ").replace("_", " ");
  const period = one.period === "total" ? "" : `, per ${one.period}`;
  return [
    [one.name, { note: one.hard ? "hard: refuses" : "soft: warns" }],
    scope + period,
    [{ share: part, tone, text }, ...(held ? [{ note: `${dollars(held)} reserved` }] : [])],
    dollars(one.left_usd),
  ];
}

function budgetsNote(data) {
  if (!data.ledger) return "The ledger is off: spending is not recorded, and unlimited.";
  if (data.budgets_fault) return `Budgets cannot be read now (${data.budgets_fault}).`;
  if (!data.budgets.length) return "No budget is set: spending is unlimited.";
  const covered = data.budgets.some((one) => one.hard && one.scope === "*");
  return covered ? "" : "No hard budget counts everything: spending that no hard budget below counts is unlimited.";
}

function routeFault(one) {
  if (one.quarantine) return { pill: "bad", text: "in quarantine" };
  if (one.blocked) return { pill: "warn", text: one.blocked };
  if (one.circuit === "open") return { pill: "bad", text: "circuit open" };
  return one.circuit === "half-open" ? { pill: "warn", text: "circuit half-open" } : null;
}

function routeRow(one) {
  const why = one.quarantine ? [` ${one.quarantine}`] : [];
  return [one.route, one.model, [routeFault(one) ?? { pill: "good", text: "good" }, ...why]];
}

function residentRow(one) {
  const kept = one.keep_alive_s === null ? "" : `, unloaded after ${duration(one.keep_alive_s)}`;
  const pill = { pill: one.state === "loaded" ? "good" : "warn", text: one.state };
  const use = one.jobs ? "now" : `${duration(one.unused_s)} ago`;
  return [one.model, pill, one.bytes ? bytes(one.bytes) : "–", use + kept, one.waiting ? `${number(one.jobs)}, ${number(one.waiting)} waiting` : number(one.jobs), one.runtime];
}

function inferenceNote({ inference }) {
  if (!inference) return "There is none: each worker computes local models itself.";
  if (inference.fault) return { pill: "bad", text: inference.fault };
  if (inference.hanging) return { pill: "bad", text: "its batches make no progress" };
  const empty = inference.models.length ? "" : " No model is loaded.";
  return `${plural(inference.jobs, "job")} now, ${plural(inference.ended, "batch", "batches")} computed, ${plural(inference.clients, "connection")}.${empty}`;
}

function requestRow(one) {
  const tone = one.status >= 500 ? "bad" : one.status >= 400 ? "warn" : "plain";
  const answer = one.status >= 400 ? [{ pill: tone, text: String(one.status) }, ` ${one.code}`] : [{ pill: tone, text: `${one.status} slow` }];
  const key = one.tenant ? `${one.key} (${one.tenant})` : one.key;
  return [clock(new Date(one.time)), one.path, answer, milliseconds(one.seconds * 1000), number(one.texts), one.model || "–", key || "–", one.request_id];
}
