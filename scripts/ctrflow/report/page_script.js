/* The interactive parts of the page: maps, sorting and download of tables, opening a section from a link.
   Bokeh only draws; all controls are plain HTML elements, so that keyboard and screen reader work. */
(function () {
  "use strict";

  const settings = JSON.parse(document.getElementById("plots").textContent);
  const { cancer: CANCER, other: OTHER, unknown: UNKNOWN } = settings.colours;
  const KINDS = [["other", OTHER], ["cancer", CANCER], ["unknown", UNKNOWN]];
  const CLASS_NAMES = { call: { 1: "cancer", 0: "other", "-1": "not scored" }, label: { 1: "cancer", 0: "other", "-1": "unknown" } };
  const HOLLOW = 0.25; // fill opacity of spots that are not cancer: distinguishable without colour
  const RIM = "#1f2328"; // outline of cancer spots: their fill is as dark as stained tissue
  const MARGIN = 0.03;
  const SPECK_PX = 5; // spots narrower than this are drawn without a rim
  const MANY_SPOTS = 10000; // above this WebGL draws
  const maps = new Map();

  /* --- data ------------------------------------------------------------------------------------------------------ */

  const decoded = (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Kind(bytes.buffer);
  };

  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  const geometries = new Map();
  function geometry(id) {
    if (!geometries.has(id)) {
      const found = read(id);
      const regions = found.regions && decoded(found.regions.place, Uint16Array);
      geometries.set(id, {
        ...found,
        x: decoded(found.x, Float32Array),
        y: decoded(found.y, Float32Array),
        labels: found.labels && decoded(found.labels, Int8Array),
        region: regions && Array.from(regions, (place) => found.regions.words[place]),
      });
    }
    return geometries.get(id);
  }

  /* --- a map ----------------------------------------------------------------------------------------------------- */

  async function open(section) {
    const holder = section.querySelector(".map");
    if (!holder || maps.has(section.id)) return;
    const map = { holder, runs: read(`runs-${section.id}`), geometry: geometry(holder.dataset.geometry), threshold: null };
    maps.set(section.id, map);
    map.part = (name) => holder.querySelector(`[data-part="${name}"]`);
    map.input = (name) => holder.querySelector(`[data-input="${name}"]`);
    await draw(map);
    listen(map);
    ctrflowMarks.attach(map, settings.colours, { look: (x, y) => lookAt(map, x, y), saveFile });
    show(map);
    holder.dataset.ready = "yes";
  }

  async function embedded(item, place) {
    place.id = place.id || `plot-${Math.random().toString(36).slice(2)}`;
    const views = await Bokeh.embed.embed_item({ ...structuredClone(item), target_id: place.id });
    return views.roots[0].model.document;
  }

  async function draw(map) {
    const { x, y, spots, spot_um, picture } = map.geometry;
    const plot = await embedded(settings.items.map, map.part("plot"));
    map.figure = plot.roots()[0];
    [map.spots, map.picture, map.hover] = ["spots", "picture", "hover"].map((name) => plot.get_model_by_name(name));
    map.spots.glyph.radius = { value: spot_um / 2 };
    const empty = new Array(x.length).fill("");
    map.columns = { x, y, spot: spots, score: x, probability: x, call: empty, label: empty, sd: x, colour: empty, rim: empty, fill: x };
    if (map.geometry.labels) {
      map.columns.label = Array.from(map.geometry.labels, (label, spot) => {
        const word = CLASS_NAMES.label[label];
        const region = map.geometry.region && map.geometry.region[spot];
        return region ? `${word} (${region})` : word;
      });
    }
    if (picture) map.picture.data_source.data = { url: [picture.uri], width: [picture.width_um], height: [picture.height_um] };
    if (x.length > MANY_SPOTS) map.figure.output_backend = "webgl";
    fit(map);
    map.figure.x_range.properties.start.change.connect(() => outline(map));
    new ResizeObserver(() => fit(map)).observe(map.part("plot"));
    const histogram = await embedded(settings.items.histogram, map.part("histogram"));
    map.histogram = histogram.roots()[0];
    [map.bars, map.line] = ["bars", "threshold"].map((name) => histogram.get_model_by_name(name));
  }

  const extent = (values, by) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    return [low - by, high + by];
  };

  /* show the whole section at equal scale in x and y; y grows downwards as in the image */
  function fit(map) {
    const { x, y, spot_um } = map.geometry;
    const [left, right] = extent(x, spot_um), [top, bottom] = extent(y, spot_um);
    const place = map.part("plot");
    const wide = Math.max(place.clientWidth, 1), high = Math.max(place.clientHeight, 1);
    const um = (1 + 2 * MARGIN) * Math.max((right - left) / wide, (bottom - top) / high);
    look(map, (left + right) / 2, (top + bottom) / 2, um * wide, um * high);
    outline(map);
  }

  /* scale rims with the spots on the screen; rims would hide very small spots */
  function outline(map) {
    const { start, end } = map.figure.x_range;
    const spot = (map.geometry.spot_um / (end - start)) * map.part("plot").clientWidth;
    const alpha = spot < SPECK_PX ? 0 : map.input("opacity").value / 100;
    map.spots.glyph.setv({ line_width: { value: Math.min(2.4, Math.max(1, spot / 8)) }, line_alpha: { value: alpha } });
  }

  function look(map, x, y, wide, high) {
    map.figure.x_range.setv({ start: x - wide / 2, end: x + wide / 2 });
    map.figure.y_range.setv({ start: y + high / 2, end: y - high / 2 });
  }

  function lookAt(map, x, y) {
    const { x_range, y_range } = map.figure;
    look(map, x, y, x_range.end - x_range.start, y_range.start - y_range.end);
  }

  function move(map, right, down, closer) {
    const { x_range, y_range } = map.figure;
    const wide = x_range.end - x_range.start, high = y_range.start - y_range.end;
    look(map, (x_range.start + x_range.end) / 2 + right * wide, (y_range.start + y_range.end) / 2 + down * high, wide / closer, high / closer);
  }

  const MOVES = {
    ArrowLeft: [-0.15, 0, 1], ArrowRight: [0.15, 0, 1], ArrowUp: [0, -0.15, 1], ArrowDown: [0, 0.15, 1],
    "+": [0, 0, 1.4], "=": [0, 0, 1.4], "-": [0, 0, 1 / 1.4],
  };

  function listen(map) {
    map.input("method").addEventListener("change", () => { map.threshold = null; show(map); });
    for (const radio of map.holder.querySelectorAll('[data-input="layer"]')) radio.addEventListener("change", () => paint(map));
    map.input("opacity").addEventListener("input", () => paint(map));
    const image = map.input("image");
    if (image) image.addEventListener("change", () => { map.picture.visible = image.checked; });
    for (const name of ["threshold", "threshold-number"]) {
      map.input(name).addEventListener("input", (event) => {
        if (event.target.value === "") return;
        map.threshold = Number(event.target.value);
        layer(map, "call");
        count(map);
      });
    }
    map.input("reset").addEventListener("click", () => { map.threshold = null; count(map); });
    map.input("spots-csv").addEventListener("click", () => downloadSpots(map));
    for (const button of map.holder.querySelectorAll("[data-move]")) {
      button.addEventListener("click", () => (button.dataset.move === "0" ? fit(map) : move(map, ...MOVES[button.dataset.move])));
    }
    map.part("plot").addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key !== "0" && !(event.key in MOVES)) return;
      event.preventDefault();
      if (event.key === "0") fit(map); else move(map, ...MOVES[event.key]);
    });
  }

  /* --- values on a map ------------------------------------------------------------------------------------------- */

  function run(map) {
    const found = map.runs[map.input("method").value];
    if (typeof found.score === "string") {
      found.score = decoded(found.score, Float32Array);
      found.call = decoded(found.call, Int8Array);
      found.sd = found.sd && decoded(found.sd, Float32Array);
      found.probability = found.probability && decoded(found.probability, Float32Array);
      found.judged = found.judged && decoded(found.judged, Int8Array);
    }
    return found;
  }

  const chosen = (map) => map.holder.querySelector('[data-input="layer"]:checked').value;

  /* moving the threshold changes calls, so switch from scores to calls */
  function layer(map, name) {
    if (chosen(map) !== "score") return;
    map.holder.querySelector(`[data-input="layer"][value="${name}"]`).checked = true;
  }

  function show(map) {
    const { histogram, sd, probability, score, facts } = run(map);
    for (const [name, values] of Object.entries({ sd, probability })) {
      const radio = map.holder.querySelector(`[data-input="layer"][value="${name}"]`);
      if (!radio) continue;
      radio.disabled = !values;
      if (!values && radio.checked) map.holder.querySelector('[data-input="layer"][value="score"]').checked = true;
    }
    const { edges } = histogram;
    const slider = map.input("threshold");
    slider.min = edges[0];
    slider.max = edges[edges.length - 1];
    const bars = { left: [], right: [], bottom: [], top: [], colour: [] };
    const height = new Array(edges.length - 1).fill(0);
    for (const [kind, colour] of KINDS) {
      histogram[kind].forEach((spots, bin) => {
        if (!spots) return;
        bars.left.push(edges[bin]); bars.right.push(edges[bin + 1]);
        bars.bottom.push(height[bin]); bars.top.push(height[bin] += spots);
        bars.colour.push(kind === "unknown" ? "#aab4c0" : colour);
      });
    }
    map.bars.data_source.data = bars;
    map.histogram.x_range.setv({ start: edges[0], end: edges[edges.length - 1] });
    map.histogram.y_range.setv({ start: 0, end: 1.05 * Math.max(...height, 1) });
    map.columns.score = score;
    map.columns.sd = sd || score;
    map.columns.probability = probability || score;
    map.hover.tooltips = [
      ["spot", "@spot"], ["score", "@score{0.0000}"], ...(probability ? [["probability", "@probability{0.00}"]] : []), ["call", "@call"],
      ...(sd ? [["sd over seeds", "@sd{0.0000}"]] : []), ...(map.geometry.labels ? [["label", "@label"]] : []),
    ];
    map.part("facts").textContent = facts.length ? `${facts.map(([name, value]) => `${name} ${value}`).join(" · ")} (metrics.tsv)` : "";
    count(map);
  }

  /* the study's own calls unless the user has moved the threshold */
  function calls(map) {
    const { score, call } = run(map);
    if (map.threshold === null) return call;
    const threshold = Math.fround(map.threshold); // scores are float32: a score of 0.7 must reach a threshold of 0.7
    return Int8Array.from(score, (value) => (Number.isNaN(value) ? -1 : Number(value >= threshold)));
  }

  const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : "–");

  function count(map) {
    const { threshold, branch, judged } = run(map);
    const { cell_mm2 } = map.geometry, labels = judged || map.geometry.labels; // none beside a drawing that taught the map
    map.call = calls(map);
    let called = 0, scored = 0, hits = 0, known = 0, positive = 0;
    map.call.forEach((call, spot) => {
      if (call < 0) return;
      scored += 1;
      called += call;
      if (!labels || labels[spot] < 0) return;
      positive += labels[spot];
      known += call;
      hits += call * labels[spot];
    });
    const parts = [
      `${called.toLocaleString("en")} of ${scored.toLocaleString("en")} spots called cancer (${percent(called / scored)}), ${(called * cell_mm2).toFixed(2)} mm²`,
    ];
    if (labels) {
      parts.push(`F1 ${known + positive ? ((2 * hits) / (known + positive)).toFixed(3) : "–"}`);
      parts.push(`precision ${known ? (hits / known).toFixed(3) : "–"}`, `recall ${positive ? (hits / positive).toFixed(3) : "–"}`);
    }
    map.part("numbers").textContent = parts.join(" · ");
    const now = map.threshold === null ? threshold : map.threshold;
    const slider = map.input("threshold"), number = map.input("threshold-number");
    slider.value = now === null ? slider.max : now;
    if (document.activeElement !== number) number.value = now === null ? "" : Number(now.toPrecision(6));
    map.line.visible = now !== null;
    if (now !== null) map.line.location = now;
    map.input("reset").disabled = map.threshold === null;
    map.part("origin").textContent = map.threshold !== null ? "your threshold" : threshold === null ? "no threshold" : `label-free threshold (${branch})`;
    paint(map);
  }

  function paint(map) {
    const { limits, sd_limits, score, sd, probability } = run(map);
    const kind = chosen(map);
    const values = { score, sd, probability, call: map.call, label: map.geometry.labels }[kind];
    const spots = values.length;
    const colour = new Array(spots), fill = new Float32Array(spots);
    let rim = colour;
    if (kind === "call" || kind === "label") {
      for (let spot = 0; spot < spots; spot += 1) {
        colour[spot] = values[spot] === 1 ? CANCER : values[spot] === 0 ? OTHER : UNKNOWN;
        fill[spot] = values[spot] === 1 ? 1 : HOLLOW;
      }
      rim = colour.map((one) => (one === CANCER ? RIM : one));
      classes(map, kind, values);
    } else {
      const palette = settings.palettes[kind], [low, high] = { score: limits, sd: sd_limits, probability: [0, 1] }[kind];
      for (let spot = 0; spot < spots; spot += 1) {
        const share = (values[spot] - low) / (high - low);
        colour[spot] = Number.isNaN(share) ? UNKNOWN : palette[Math.min(255, Math.max(0, Math.floor(256 * share)))];
        fill[spot] = 1;
      }
      scale(map, palette, low, high, kind);
    }
    const call = Array.from(map.call, (one) => CLASS_NAMES.call[one]);
    map.columns = { ...map.columns, call, colour, rim, fill };
    const opacity = map.input("opacity").value / 100;
    map.columns.fill = fill.map((one) => one * opacity);
    outline(map);
    map.spots.data_source.data = { ...map.columns };
  }

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  function classes(map, kind, values) {
    const legend = map.part("legend");
    legend.replaceChildren();
    for (const [value, colour] of [[1, CANCER], [0, OTHER], [-1, UNKNOWN]]) {
      const spots = values.reduce((sum, one) => sum + (one === value), 0);
      if (!spots) continue;
      const mark = element("i", value === 1 ? "mark full" : "mark");
      mark.style.setProperty("--mark", colour);
      legend.append(mark, element("span", "", `${CLASS_NAMES[kind][value]} ${spots.toLocaleString("en")}`));
    }
  }

  function scale(map, palette, low, high, kind) {
    const bar = element("i", "ramp");
    bar.style.background = `linear-gradient(to right, ${palette.filter((_, place) => place % 15 === 0).join(", ")})`;
    const digits = Math.max(0, Math.min(4, Math.ceil(1 - Math.log10(high - low))));
    const note = { score: " (more cancer-like)", probability: " (certainly cancer)", sd: " (seeds disagree)" }[kind];
    map.part("legend").replaceChildren(element("span", "", low.toFixed(digits)), bar, element("span", "", high.toFixed(digits) + note));
  }

  /* --- downloads --------------------------------------------------------------------------------------------------- */

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function download(name, rows) {
    const text = rows.map((row) => row.map((cell) => quoted(String(cell))).join(",")).join("\n") + "\n";
    saveFile(`${name}.csv`, ["\ufeff", text], "text/csv");
  }

  function saveFile(name, parts, type) {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(parts, { type }));
    link.download = name.replace(/[^\w.-]+/g, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function downloadSpots(map) {
    const { section, spots, x, y, labels, region } = map.geometry;
    const { variant, score, sd, probability } = run(map);
    const header = ["section", "spot", "x_um", "y_um", "score", ...(probability ? ["probability"] : []), "call", ...(sd ? ["sd"] : []), ...(labels ? ["label"] : []), ...(region ? ["region"] : [])];
    // a float32 has seven significant digits
    const plain = (value) => (Number.isNaN(value) ? "" : Number(value.toPrecision(7)));
    const rows = spots.map((spot, i) => [
      section, spot, plain(x[i]), plain(y[i]), plain(score[i]), ...(probability ? [plain(probability[i])] : []), CLASS_NAMES.call[map.call[i]],
      ...(sd ? [plain(sd[i])] : []), ...(labels ? [CLASS_NAMES.label[labels[i]]] : []), ...(region ? [region[i]] : []),
    ]);
    download(`${section}_${variant}`, [header, ...rows]);
  }

  /* --- tables ------------------------------------------------------------------------------------------------------ */

  const cellText = (cell) => cell.textContent.replace(/\s+/g, " ").trim();

  /* the number at the start of a cell, else NaN */
  const number = (text) => {
    const found = /^[-−]?[\d,]*\.?\d+(e[-+]?\d+)?/i.exec(text);
    return found ? Number(found[0].replaceAll(",", "").replace("−", "-")) : NaN;
  };

  function sort(table, place, descending) {
    for (const body of table.tBodies) {
      if (body.dataset.fixed !== undefined) continue;
      const rows = [...body.rows].map((row) => ({ row, text: cellText(row.cells[place]) }));
      const numeric = rows.every(({ text }) => text === "–" || text === "" || !Number.isNaN(number(text)));
      const order = (one, other) => {
        if (!numeric) return one.text.localeCompare(other.text, "en", { numeric: true });
        return number(one.text) - number(other.text);
      };
      const missing = ({ text }) => text === "–" || text === "";
      rows.sort((one, other) => missing(one) - missing(other) || (descending ? -1 : 1) * (missing(one) ? 0 : order(one, other)));
      body.append(...rows.map(({ row }) => row));
    }
  }

  function sortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      const button = element("button", "sort", cellText(head));
      button.type = "button";
      button.title = "sort";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === (head.classList.contains("n") ? null : "ascending")
          || head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, place, descending);
      });
    });
    if (!table.dataset.name) return;
    const button = element("button", "csv", "CSV");
    button.type = "button";
    button.title = `Download this table: ${table.dataset.name}`;
    button.addEventListener("click", () => {
      const rows = [table.tHead, ...table.tBodies].flatMap((part) => [...part.rows]);
      download(table.dataset.name, rows.map((row) => [...row.cells].map(cellText)));
    });
    table.closest(".scroll").before(button);
  }

  /* --- the page ---------------------------------------------------------------------------------------------------- */

  function unfold() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    if (target) target.scrollIntoView();
  }

  for (const table of document.querySelectorAll("table")) if (table.tHead) sortable(table);
  for (const section of document.querySelectorAll("details.section")) {
    section.addEventListener("toggle", () => { if (section.open) open(section); });
    if (section.open) open(section);
  }
  window.addEventListener("hashchange", unfold);
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    // the hash does not change when the link of a closed section is clicked again
    link.addEventListener("click", () => { if (link.hash === location.hash) unfold(); });
  }
  if (location.hash) unfold();
})();
