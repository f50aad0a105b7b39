/* Marking spots on a map: a lasso by mouse, pen or touch, or spot by spot by keyboard; saved as a table of labels.
   Marks are a section's, so all its maps show them. Nothing leaves the page but the file that is saved. */
const ctrflowMarks = (function () {
  "use strict";

  const WORDS = { 1: "cancer", 0: "other" };
  const MARKS = new Map([["cancer", 1], ["other", 0]]);
  const NONE = -1;
  const KEYS = { 1: 1, 2: 0, 0: NONE };
  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const STEP_PX = 3; // between the corners of a lasso
  const CLICK_PX = 6; // a shorter way is a click
  const REACH_PX = 14; // how far from a spot's centre a finger may be
  const SPECK_PX = 5; // marks of spots narrower than this have no rim
  const SIDEWAYS = 4; // how much worse a way to the side is than one ahead
  const ASTRAY = 0.01; // decides between two that are alike
  const unsaved = new Set();

  const ask = (event) => { event.preventDefault(); event.returnValue = ""; };

  /* --- marks of a section ------------------------------------------------------------------------------------------ */

  const begun = (geometry) => (geometry.marks ??= { of: new Int8Array(geometry.x.length).fill(NONE), steps: [], maps: [] });

  /* pairs of spot and mark; one step for undo */
  function put(marks, pairs) {
    const fresh = pairs.filter(([spot, mark]) => marks.of[spot] !== mark);
    if (!fresh.length) return;
    marks.steps.push(fresh.map(([spot]) => [spot, marks.of[spot]]));
    write(marks, fresh);
  }

  function write(marks, pairs) {
    for (const [spot, mark] of pairs) marks.of[spot] = mark;
    if (marks.of.some((mark) => mark !== NONE)) unsaved.add(marks); else unsaved.delete(marks);
    watch();
    marks.maps.forEach(draw);
  }

  function undo(marks) {
    const step = marks.steps.pop();
    if (step) write(marks, step);
  }

  /* the browser asks before it leaves the page while there are marks in no file */
  const watch = () => window[unsaved.size ? "addEventListener" : "removeEventListener"]("beforeunload", ask);

  /* --- on a map ---------------------------------------------------------------------------------------------------- */

  function draw(map) {
    const { marks } = map.geometry;
    const marked = marks.of.filter((mark) => mark !== NONE), cancer = marked.filter((mark) => mark === 1).length;
    map.part("marked").textContent = marked.length || marks.steps.length
      ? `${cancer.toLocaleString("en")} cancer, ${(marked.length - cancer).toLocaleString("en")} other` : "";
    map.input("undo").disabled = !marks.steps.length;
    map.input("save-marks").disabled = !marked.length;
    tell(map);
    paint(map);
  }

  /* marks are drawn over the map and not by Bokeh, which would draw every spot again */
  function paint(map) {
    const { marks, spot_um } = map.geometry, { clientWidth: wide, clientHeight: high } = map.part("plot");
    const canvas = map.part("marks"), ratio = window.devicePixelRatio, ink = canvas.getContext("2d");
    [canvas.width, canvas.height] = [wide * ratio, high * ratio]; // clears it
    ink.scale(ratio, ratio);
    const place = onScreen(map), spot = spot_um / umPerPx(map), speck = spot < SPECK_PX, radius = speck ? Math.max(spot, 1) / 2 : 0.3 * spot;
    for (const [mark, { fill, rim }] of Object.entries(map.looks)) {
      ink.beginPath();
      marks.of.forEach((one, number) => {
        if (one !== Number(mark)) return;
        const [across, down] = place(number);
        if (speck) return ink.rect(across - radius, down - radius, 2 * radius, 2 * radius);
        ink.moveTo(across + radius, down);
        ink.arc(across, down, radius, 0, 2 * Math.PI);
      });
      [ink.fillStyle, ink.strokeStyle, ink.lineWidth] = [fill, rim, Math.min(2, spot / 8)];
      ink.fill();
      if (!speck) ink.stroke();
    }
    const [across, down] = map.at === NONE ? [-99, -99] : place(map.at);
    map.part("pointer").setAttribute("transform", `translate(${across} ${down})`);
    for (const ring of map.part("pointer").children) ring.setAttribute("r", Math.max(0.7 * spot, 5));
  }

  /* once for all changes of a frame */
  function repaint(map) {
    map.due ??= requestAnimationFrame(() => { map.due = null; paint(map); });
  }

  const px = (map, { clientX, clientY }) => {
    const plot = map.part("plot"), box = plot.getBoundingClientRect();
    return [clientX - box.left - plot.clientLeft, clientY - box.top - plot.clientTop];
  };

  const umPerPx = (map) => (map.figure.x_range.end - map.figure.x_range.start) / map.part("plot").clientWidth;

  const um = (map, [across, down]) => [map.figure.x_range.start + across * umPerPx(map), map.figure.y_range.end + down * umPerPx(map)];

  /* spot -> px from the corner of the plot, as long as the map does not move */
  const onScreen = (map) => {
    const { x, y } = map.geometry, { x_range, y_range } = map.figure, perPx = umPerPx(map);
    const left = x_range.start, top = y_range.end;
    return (spot) => [(x[spot] - left) / perPx, (y[spot] - top) / perPx];
  };

  /* the spots in a closed path, µm: those that it winds around, so that a loop in a loop stays inside */
  function inside(path, { x, y }) {
    const [left, right, top, bottom] = [0, 1].flatMap((axis) => {
      const values = path.map((corner) => corner[axis]);
      return [Math.min(...values), Math.max(...values)];
    });
    const found = [];
    for (let spot = 0; spot < x.length; spot += 1) {
      if (x[spot] < left || x[spot] > right || y[spot] < top || y[spot] > bottom) continue;
      let turns = 0;
      for (let one = path.length - 1, other = 0; other < path.length; one = other, other += 1) {
        const [x1, y1] = path[one], [x2, y2] = path[other];
        if (y1 <= y[spot] === y2 <= y[spot]) continue;
        const side = (x2 - x1) * (y[spot] - y1) - (x[spot] - x1) * (y2 - y1);
        if (y2 > y1 === side > 0) turns += y2 > y1 ? 1 : -1;
      }
      if (turns) found.push(spot);
    }
    return found;
  }

  /* the spot that is nearest to a place, NONE if none is within reach; `cost` of the way to it */
  function nearest({ x, y }, cost, reach = Infinity) {
    let best = NONE, least = reach;
    for (let spot = 0; spot < x.length; spot += 1) {
      const one = cost(x[spot], y[spot]);
      if (one < least) [best, least] = [spot, one];
    }
    return best;
  }

  const pen = (map) => Number(map.holder.querySelector('[data-input="pen"]:checked').value);

  function choose(map, mark) {
    map.holder.querySelector(`[data-input="pen"][value="${mark}"]`).checked = true;
  }

  /* --- the lasso --------------------------------------------------------------------------------------------------- */

  function outline(map) {
    const path = map.path || [];
    map.part("lasso").setAttribute("d", path.length > 1 ? `M${path.map((corner) => corner.map(Math.round).join(" ")).join("L")}Z` : "");
  }

  function begin(map, event) {
    if (event.shiftKey || event.button > 0) return; // moves the map
    event.stopPropagation();
    map.path = event.isPrimary ? [px(map, event)] : null; // a second finger ends it
    outline(map);
    point(map, NONE);
    map.part("plot").focus({ preventScroll: true });
    if (map.path) map.part("plot").setPointerCapture(event.pointerId);
  }

  function go(map, event) {
    if (!map.path) return;
    event.stopPropagation();
    const [x, y] = px(map, event), [lastX, lastY] = map.path.at(-1);
    if (Math.hypot(x - lastX, y - lastY) < STEP_PX) return;
    map.path.push([x, y]);
    outline(map);
  }

  function end(map, event) {
    if (!map.path) return;
    event.stopPropagation();
    const path = map.path.map((corner) => um(map, corner)), [x, y] = path[0];
    const short = map.path.every(([across, down]) => Math.hypot(across - map.path[0][0], down - map.path[0][1]) < CLICK_PX);
    map.path = null;
    outline(map);
    const reach = Math.max(map.geometry.spot_um / 2, REACH_PX * umPerPx(map));
    const spots = short ? [nearest(map.geometry, (of, by) => Math.hypot(of - x, by - y), reach)] : inside(path, map.geometry);
    const mark = pen(map);
    put(map.geometry.marks, spots.filter((spot) => spot !== NONE).map((spot) => [spot, mark]));
  }

  /* --- by keyboard ------------------------------------------------------------------------------------------------- */

  /* put the pointer of the keyboard on a spot */
  function point(map, spot) {
    const { x, y } = map.geometry;
    map.at = spot;
    tell(map);
    repaint(map);
    if (spot === NONE) return;
    const { x_range, y_range } = map.figure;
    if (x[spot] > x_range.start && x[spot] < x_range.end && y[spot] > y_range.end && y[spot] < y_range.start) return;
    map.look(x[spot], y[spot]);
  }

  function tell(map) {
    const { spots, marks } = map.geometry;
    map.part("at").textContent = map.at === NONE ? "" : `spot ${spots[map.at]}: ${WORDS[marks.of[map.at]] || "not marked"}`;
  }

  /* the next spot to the right, left, below or above; rows of hexagons are shifted, so keep to the line begun with */
  function step(map, [right, down]) {
    const { x, y } = map.geometry;
    if (map.at === NONE) {
      const { x_range, y_range } = map.figure;
      const middle = [(x_range.start + x_range.end) / 2, (y_range.start + y_range.end) / 2];
      const first = nearest(map.geometry, (of, by) => Math.hypot(of - middle[0], by - middle[1]));
      map.line = [x[first], y[first]];
      return point(map, first);
    }
    const [across, deep] = [x[map.at], y[map.at]];
    const next = nearest(map.geometry, (of, by) => {
      const ahead = (of - across) * right + (by - deep) * down, aside = (of - across) * down + (by - deep) * right;
      const astray = right ? by - map.line[1] : of - map.line[0];
      return ahead > 0 && Math.abs(aside) <= ahead ? ahead ** 2 + SIDEWAYS * aside ** 2 + ASTRAY * astray ** 2 : Infinity;
    });
    if (next === NONE) return;
    map.line[right ? 0 : 1] = (right ? x : y)[next];
    point(map, next);
  }

  function press(map, event) {
    const { key } = event, { marks } = map.geometry, command = event.ctrlKey || event.metaKey;
    if (event.altKey) return;
    if (key in WAYS && !command) step(map, WAYS[key]);
    else if (key in KEYS && !command) {
      choose(map, KEYS[key]);
      if (map.at !== NONE) put(marks, [[map.at, KEYS[key]]]);
    } else if (key === "z" && command) undo(marks);
    else if (key === "Escape" && map.path) { map.path = null; outline(map); }
    else if (key === "Escape") turn(map, false);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  /* --- files ------------------------------------------------------------------------------------------------------- */

  const quoted = (text) => (/["\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const plain = (cell) => (/^".*"$/.test(cell) ? cell.slice(1, -1).replaceAll('""', '"') : cell);

  function save(map) {
    const { section, spots, marks } = map.geometry;
    const rows = spots.flatMap((spot, number) => (marks.of[number] === NONE ? [] : [`${quoted(spot)}\t${WORDS[marks.of[number]]}\n`]));
    map.saveFile(`${section}.drawn.tsv`, ["spot\tlabel\n", ...rows], "text/tab-separated-values");
    unsaved.delete(marks);
    watch();
  }

  async function load(map, file) {
    if (!file) return;
    const { spots, section, marks } = map.geometry, first = marks.of.every((mark) => mark === NONE);
    const place = new Map(spots.map((spot, number) => [spot, number]));
    const [, ...rows] = (await file.text()).replace(/^\ufeff/, "").split(/\r?\n/).filter(Boolean);
    const pairs = rows.map((row) => row.split("\t").map(plain)).map(([spot, word]) => [place.get(spot), MARKS.get(word)]);
    const known = pairs.filter((pair) => !pair.includes(undefined));
    put(marks, known);
    if (first) { unsaved.delete(marks); watch(); }
    if (known.length < rows.length || !rows.length) {
      map.part("at").textContent = `${rows.length - known.length} of ${rows.length} rows of ${file.name} are not a spot of ${section} with cancer or other`;
    }
  }

  /* --- on and off -------------------------------------------------------------------------------------------------- */

  function turn(map, on) {
    const plot = map.part("plot");
    map.marking = on;
    map.holder.classList.toggle("marking", on);
    map.input("mark").setAttribute("aria-pressed", on);
    for (const name of ["pens", "hint"]) map.part(name).hidden = !on;
    plot.setAttribute("role", on ? "application" : "group"); // a screen reader then leaves the arrow keys to the map
    plot.setAttribute("aria-label", on ? `Marking spots of section ${map.geometry.section}. ${map.part("hint").textContent}` : map.usualLabel);
    map.path = null;
    outline(map);
    point(map, NONE);
    if (on) plot.focus({ preventScroll: true });
  }

  /* `tools`: look(x, y) shows a place in µm, saveFile(name, parts, type) */
  function attach(map, colours, tools) {
    Object.assign(map, tools, {
      usualLabel: map.part("plot").getAttribute("aria-label"),
      looks: { 0: { fill: "#e3f4ff", rim: "#0072b2" }, 1: { fill: colours.cancer, rim: "#000000" } }, // dark and light
      at: NONE,
    });
    const marks = begun(map.geometry), plot = map.part("plot");
    marks.maps.push(map);
    const marking = (act) => (event) => { if (map.marking) act(map, event); };
    // before Bokeh, which lies inside the plot, moves the map
    for (const [name, act] of Object.entries({ pointerdown: begin, pointermove: go, pointerup: end, keydown: press })) {
      plot.addEventListener(name, marking(act), true);
    }
    plot.addEventListener("pointercancel", marking(() => { map.path = null; outline(map); }), true);
    for (const axis of ["x_range", "y_range"]) map.figure[axis].properties.start.change.connect(() => repaint(map));
    new ResizeObserver(() => repaint(map)).observe(plot);
    map.input("mark").addEventListener("click", () => turn(map, !map.marking));
    map.input("undo").addEventListener("click", () => undo(marks));
    map.input("save-marks").addEventListener("click", () => save(map));
    map.input("load-marks").addEventListener("change", async ({ target }) => { await load(map, target.files[0]); target.value = ""; });
    draw(map);
  }

  return { attach };
})();
