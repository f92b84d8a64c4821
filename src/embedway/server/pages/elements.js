// Numbers as text, and elements of the page. Values of the gateway become text nodes only: names may contain HTML.

const $ = (id) => document.getElementById(id);

function number(value, digits = 0) {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function share(part, whole) {
  return whole ? `${number((100 * part) / whole, part && part < whole / 100 ? 2 : 1)} %` : "–";
}

// Dollars as text; amounts below a cent have three significant digits.
function dollars(value) {
  const amount = Number(value);
  const digits = amount && Math.abs(amount) < 0.01 ? { maximumSignificantDigits: 3 } : { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  return `$${amount.toLocaleString("en", digits)}`;
}

function milliseconds(value) {
  if (value === null) return "–";
  if (value >= 1000) return `${number(value / 1000, value < 10_000 ? 2 : 1)} s`;
  return `${number(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}

function bytes(value) {
  return value >= 2 ** 30 ? `${number(value / 2 ** 30, 2)} GiB` : `${number(value / 2 ** 20)} MiB`;
}

function duration(seconds) {
  const units = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [[unit, size], next] = [units[at], units[at + 1]];
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${next[0]}` : ""}`;
}

function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

function clock(date, seconds = true) {
  return date.toLocaleTimeString("en-GB", seconds ? {} : { hour: "2-digit", minute: "2-digit" });
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.map(String));
  return element;
}

const shown = new WeakMap();

// Sets the content of an element if it changed: a selection and the place of a screen reader stay.
// Content is text, {pill, text}, {note} in small letters, {share, tone, text} for a bar with its number, or a list of these.
function put(element, content) {
  const written = JSON.stringify(content);
  if (shown.get(element) === written) return;
  shown.set(element, written);
  element.replaceChildren(...[content].flat().map(node));
}

function node(content) {
  if (typeof content !== "object") return document.createTextNode(String(content));
  if (content.pill) return make("span", `pill ${content.pill}`, content.text);
  if (content.note) return make("small", "", content.note);
  const bar = make("b");
  bar.style.width = content.share > 0 ? `max(2px, ${Math.min(100, 100 * content.share)}%)` : "0";
  const track = make("span", `track ${content.tone}`);
  track.setAttribute("aria-hidden", "true");
  track.append(bar);
  const meter = make("span", "meter", content.text);
  meter.append(track);
  return meter;
}

// Fills a list of terms with [term, content] pairs.
function fillPairs(list, pairs) {
  while (list.children.length > pairs.length) list.lastChild.remove();
  pairs.forEach(([term, content], at) => {
    let pair = list.children[at];
    if (!pair) {
      pair = make("div");
      pair.append(make("dt"), make("dd"));
      list.append(pair);
    }
    put(pair.firstChild, term);
    put(pair.lastChild, content);
  });
}

// Fills a table. `columns` are [heading, class of the cells]; the first cell of a row is its heading.
function fillTable(table, columns, rows) {
  table.hidden = !rows.length;
  if (!table.tHead) {
    const headings = table.createTHead().insertRow();
    for (const [name, kind] of columns) {
      const heading = make("th", kind, name);
      heading.scope = "col";
      headings.append(heading);
    }
    table.createTBody();
  }
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    cells.forEach((content, column) => {
      let cell = row.cells[column];
      if (!cell) {
        cell = make(column ? "td" : "th", columns[column][1]);
        if (!column) cell.scope = "row";
        row.append(cell);
      }
      put(cell, content);
    });
  });
  // A large table scrolls by itself; the keyboard must reach it then.
  const box = table.parentElement;
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) {
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", table.caption.textContent);
  } else {
    for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
  }
}
