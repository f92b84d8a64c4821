// Two charts as SVG. Each has its numbers in its label, and in the table below the charts.

const PERIOD_S = 5, HEIGHT = 170, LEFT = 52, TOP = 8, BOTTOM = 22;

function svg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

// Returns the frame of a chart: its nodes with grid and labels, and the scales of both axes.
function frame(chart, history, ticks, top) {
  const width = chart.clientWidth || 600, right = width - 4, low = HEIGHT - BOTTOM;
  chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const step = (right - LEFT) / history.length;
  const x = (at) => LEFT + at * step;
  const y = (part) => low - part * (low - TOP);
  const nodes = [];
  for (const [part, label] of ticks) {
    nodes.push(svg("line", { class: "grid", x1: LEFT, x2: right, y1: y(part), y2: y(part) }));
    nodes.push(svg("text", { x: LEFT - 8, y: y(part) + 4, "text-anchor": "end" }, label));
  }
  const anchors = ["start", "middle", "end"], last = history.length - 1;
  anchors.forEach((anchor, place) => {
    const at = Math.round((last * place) / 2);
    const time = clock(new Date(history[at].start * 1000), false);
    nodes.push(svg("text", { x: place === 2 ? right : x(at), y: HEIGHT - 4, "text-anchor": anchor }, time));
  });
  return { nodes, step, x, y };
}

// The smallest of 1, 2, 4, 6, 8 and 10 times a power of ten that is not below a value.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].find((factor) => factor * power >= value * 0.9999) * power;
}

function drawTraffic(chart, history) {
  const rates = history.map((one) => one.requests / PERIOD_S);
  const highest = Math.max(...rates), top = roundUp(Math.max(highest, 1));
  const { nodes, step, x, y } = frame(chart, history, [0, 0.5, 1].map((part) => [part, number(top * part, 2)]));
  const stripes = svg("pattern", { id: "stripes", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  stripes.append(svg("line", { class: "stripe", x1: 0, x2: 0, y1: 0, y2: 5 }));
  nodes.push(stripes);
  history.forEach((one, at) => {
    // A single failure stays visible.
    const failed = one.failed ? Math.max(one.failed / PERIOD_S / top, 0.03) : 0, all = Math.max(rates[at] / top, failed);
    for (const [kind, from, to] of [["bar-failed", 0, failed], ["bar", failed, all]]) {
      if (to > from) nodes.push(svg("rect", { class: kind, x: x(at), width: Math.max(step - 1, 1), y: y(to), height: y(from) - y(to) }));
    }
  });
  chart.replaceChildren(...nodes);
  const failures = history.reduce((sum, one) => sum + one.failed, 0);
  const when = clock(new Date(history[rates.indexOf(highest)].start * 1000));
  return highest ? `Requests per second: ${number(rates.at(-1), 1)} at the end, at most ${number(highest, 1)} at ${when}; ${number(failures)} failed` : "Requests per second: none in ten minutes";
}

function drawLatency(chart, history) {
  const times = history.flatMap((one) => (one.requests ? [one.p50_ms, one.p99_ms] : []));
  const low = Math.floor(Math.log10(Math.min(...times, 10))), high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...times, 10))));
  const decades = Array.from({ length: high - low + 1 }, (_, at) => [at / (high - low), milliseconds(10 ** (low + at))]);
  const { nodes, step, x, y } = frame(chart, history, decades);
  for (const [name, kind] of [["p99_ms", "line dashed"], ["p50_ms", "line"]]) {
    let path = "", before = null;
    history.forEach((one, at) => {
      if (one[name] !== null) {
        const [middle, height] = [x(at) + step / 2, y((Math.log10(one[name]) - low) / (high - low))];
        // A point without neighbours is a short line.
        path += before === null ? `M${middle - 2} ${height}L${middle + 2} ${height}` : `L${middle} ${height}`;
      }
      before = one[name];
    });
    nodes.push(svg("path", { class: kind, d: path }));
  }
  chart.replaceChildren(...nodes);
  const last = history.findLast((one) => one.requests);
  return last ? `Latency: p50 ${milliseconds(last.p50_ms)} and p99 ${milliseconds(last.p99_ms)} at the end; p99 at most ${milliseconds(Math.max(...times))}` : "Latency: no requests in ten minutes";
}

// Draws both charts. The last period has not ended, and would look like a drop.
function drawCharts(history) {
  const ended = history.slice(0, -1);
  for (const [id, draw] of [["traffic", drawTraffic], ["latency", drawLatency]]) {
    $(id).setAttribute("aria-label", draw($(id), ended));
  }
}

function minuteRows(history) {
  const rows = [], periods = 60 / PERIOD_S, ended = history.slice(0, -1);
  for (let end = ended.length; end > 0; end -= periods) {
    const minute = ended.slice(Math.max(0, end - periods), end);
    const sum = (name) => minute.reduce((total, one) => total + one[name], 0);
    const most = (name) => milliseconds(minute.reduce((found, one) => (one[name] > found ? one[name] : found), null));
    const [from, requests] = [clock(new Date(minute[0].start * 1000)), sum("requests")];
    rows.push([from, number(requests), number(sum("failed")), number(sum("texts")), number(sum("hits")), most("p50_ms"), most("p99_ms")]);
  }
  return rows;
}
