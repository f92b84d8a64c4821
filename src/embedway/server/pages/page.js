// The page: asks for the data every two seconds while it is visible, signs in and out, and compares two texts.

const REFRESH_MS = 2000, ANSWER_MS = 8000, EMBED_MS = 120_000, STORED = "embedway.key";

let key = "", data = null, timer = 0, asking = false, paused = false;
try {
  key = sessionStorage.getItem(STORED) ?? "";
} catch {
  // The browser stores nothing: the key is lost with a reload.
}

function keep(value) {
  key = value;
  try {
    if (value) sessionStorage.setItem(STORED, value);
    else sessionStorage.removeItem(STORED);
  } catch {
    // As above.
  }
}

function ask(path, limitMs, body = null) {
  const headers = { ...(key && { authorization: `Bearer ${key}` }), ...(body && { "content-type": "application/json" }) };
  const options = { headers, cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(limitMs) };
  return fetch(path, body ? { ...options, method: "POST", body: JSON.stringify(body) } : options);
}

// Returns the code and the message of an answer that is an error.
async function problem(answer) {
  try {
    const { error } = await answer.json();
    return { code: String(error.code), message: String(error.message) };
  } catch {
    return { code: "", message: `the answer has status ${answer.status}` };
  }
}

// Says a change to screen readers. Numbers are not said every two seconds.
function say(text) {
  put($("news"), text);
}

function setReady(tone, text) {
  $("ready").className = `pill ${tone}`;
  put($("ready"), text);
}

function setBanner(text) {
  put($("banner"), text);
  $("banner").hidden = !text;
  $("data").classList.toggle("stale", Boolean(text));
}

async function refresh() {
  clearTimeout(timer);
  const needsKey = !key && !$("key-section").hidden;
  if (asking || paused || document.hidden || needsKey) return;
  asking = true;
  let again = true;
  try {
    again = await update();
  } finally {
    asking = false;
  }
  if (again) timer = setTimeout(refresh, REFRESH_MS);
}

// Returns whether to ask again.
async function update() {
  let answer, found;
  try {
    answer = await ask("/overview.json", ANSWER_MS);
    found = answer.ok ? await answer.json() : await problem(answer);
  } catch {
    if (!$("banner").textContent) setBanner(`The gateway cannot be reached since ${clock(new Date())}. The page tries again every two seconds.`);
    setReady("bad", "Not reachable");
    return true;
  }
  if (answer.status === 401 || found.code === "permission_denied") {
    const refused = answer.status === 401 ? "The gateway does not accept this key." : "This key has no admin rights. Use one that was created with --admin.";
    showKeyForm(key ? refused : "");
    return false;
  }
  if (!answer.ok) {
    setBanner(`The gateway answers with an error, ${answer.status}: ${found.message}`);
    setReady("bad", `Error ${answer.status}`);
    return true;
  }
  data = found;
  setBanner("");
  $("key-section").hidden = true;
  $("data").hidden = false;
  $("sign-out").hidden = !key;
  setReady(data.not_ready ? "bad" : "good", data.not_ready ? `Not ready: ${data.not_ready}` : "Ready");
  show(data);
  fillModels();
  const faults = data.routes.filter(routeFault).length;
  say((data.not_ready ? "The gateway is not ready." : "The gateway is ready.") + (faults ? ` ${plural(faults, "route is", "routes are")} not used.` : ""));
  return true;
}

function showKeyForm(fault) {
  keep("");
  $("data").hidden = true;
  $("sign-out").hidden = true;
  $("key-section").hidden = false;
  setBanner("");
  setReady("plain", "Sign in to see its state");
  put($("facts"), "");
  put($("key-fault"), fault);
  $("key").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = $("key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(value)) {
    put($("key-fault"), "A key has letters, digits and underscores only.");
    return;
  }
  $("key").value = "";
  put($("key-fault"), "");
  keep(value);
  refresh().then(() => $("data").hidden || $("main").focus());
});

$("sign-out").addEventListener("click", () => {
  keep("");
  location.reload(); // nothing of the data stays in the document
});

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  say(paused ? "Updates are paused." : "Updates go on.");
  refresh();
});

document.addEventListener("visibilitychange", refresh);
new ResizeObserver(() => data && drawCharts(data.history)).observe($("traffic"));

function fillModels() {
  const names = data.served.filter((one) => one.task === "embed");
  const list = $("model"), wanted = JSON.stringify(names.map((one) => one.model));
  if (shown.get(list) === wanted) return;
  shown.set(list, wanted);
  const before = list.value || (names.find((one) => one.default) ?? names.find((one) => one.kind === "local"))?.model;
  list.replaceChildren(...names.map((one) => {
    const option = make("option", "", one.model);
    option.value = one.model;
    option.selected = one.model === before;
    return option;
  }));
}

function cosine(a, b) {
  let dot = 0, left = 0, right = 0;
  for (let at = 0; at < a.length; at++) {
    dot += a[at] * b[at];
    left += a[at] ** 2;
    right += b[at] ** 2;
  }
  return dot / Math.sqrt(left * right);
}

$("compare").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("embed"), place = $("compared");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true"); // not `disabled`, which would take the focus away
  try {
    place.replaceChildren(...(await compare($("model").value, $("first").value, $("second").value)));
  } catch {
    place.replaceChildren(make("p", "fault", "There was no answer from the gateway."));
  } finally {
    button.removeAttribute("aria-disabled");
  }
});

// Returns the elements that show the similarity of two texts, or why there is none.
async function compare(model, first, second) {
  const began = performance.now();
  const answer = await ask("/v1/embeddings", EMBED_MS, { model, input: [first, second] });
  if (!answer.ok) {
    const found = await problem(answer);
    return [make("p", "fault", `Error ${answer.status}: ${found.message}`)];
  }
  const found = await answer.json();
  const tookMs = performance.now() - began;
  const [a, b] = found.data.map((one) => one.embedding);
  const similarity = cosine(a, b), header = (name) => answer.headers.get(`x-embedway-${name}`);
  const cost = header("cost-usd");
  const list = make("dl", "pairs");
  fillPairs(list, [
    ["Similarity (cosine)", [{ share: Math.max(0, similarity), tone: "", text: number(similarity, 4) }]],
    ["Tokens", number(found.usage.total_tokens)],
    ["Cost", cost === "unknown" ? "unknown" : dollars(cost)],
    ["Time", milliseconds(tookMs)],
    ["From the cache", `${header("cache").replace("/", " of ")} texts`],
    ["Dimensions", number(a.length)],
    ["Truncated texts", header("truncated").split(";")[0]],
  ]);
  return [list];
}

refresh();
