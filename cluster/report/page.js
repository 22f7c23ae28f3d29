/* Draws the charts of a page with Chart.js from the JSON in #page-data (cluster/report/charts.h says what is in it).
 *
 *     <div class="plots" data-chart="2">    a legend and tools that hold for all its panels; then each panel with its own
 *                                           axes, PNG and CSV
 *
 * A name has one colour on the whole page. Nothing is computed here that is not in the tables, but for the smoothing. */
"use strict";
(function () {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const SHOWN_MAX = 12; // of more names the best and the worst are shown at first; a click shows any other
  const LIGHT = ["#0062a3", "#c24400", "#007a59", "#a63d7d", "#8a6200", "#5b4bb0", "#1f8fc5", "#c2185b", "#4e7d1e", "#6d4c41",
    "#00838f", "#4a4f57"];
  const DARK = ["#6cb4f0", "#ff8a50", "#3fc39a", "#e58fc0", "#e0b040", "#b0a4f5", "#8ad0f5", "#ff7fa5", "#a5d266", "#c9a58f",
    "#4fd3de", "#c4c9d0"];
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];
  const MARKERS = ["circle", "rect", "triangle", "rectRot", "star", "rectRounded"];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const names = new Map(); // name -> its place in the order of the page, which is its colour
  const sections = [];

  const element = (tag, attributes, ...inside) => {
    const ret = document.createElement(tag);
    Object.entries(attributes || {}).forEach(([key, value]) => ret.setAttribute(key, value));
    ret.append(...inside);
    return ret;
  };
  const button = (text, title, onclick) => {
    const ret = element("button", {type: "button", title}, text);
    ret.addEventListener("click", () => onclick(ret));
    return ret;
  };
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const finite = (value) => typeof value === "number" && Number.isFinite(value);

  function words(value, percent) {
    if (!finite(value)) return "";
    if (percent) return (100 * value).toFixed(2) + " %";
    return String(Number(value.toPrecision(6)));
  }
  function tick(value, percent) {
    const shown = Number((percent ? 100 * value : value).toPrecision(8));
    const size = Math.abs(shown);
    if (percent) return shown + " %";
    if (size >= 1e6 || (size > 0 && size < 1e-4)) return shown.toExponential().replace("e+", "e");
    return String(shown);
  }

  // ---- names and colours ----

  function lines(chart, panel) {
    if (chart.kind !== "course") return panel.lines;
    return panel.runs.map((index) => ({name: page.runs[index].name, run: page.runs[index]}));
  }
  function colour(name) {
    const at = names.get(name);
    const palette = dark.matches ? DARK : LIGHT;
    if (at < palette.length) return palette[at];
    return `hsl(${(at * 137.5) % 360} 60% ${dark.matches ? 50 + 25 * (at % 2) : 28 + 17 * (at % 2)}%)`;
  }
  const dash = (name) => DASHES[Math.floor(names.get(name) / LIGHT.length) % DASHES.length];
  const marker = (name) => MARKERS[names.get(name) % MARKERS.length];

  // Of very many names: those that end best, and the worst two, by the first column of the means.
  function featured() {
    const table = page.charts.find((chart) => chart.kind === "table");
    if (names.size <= SHOWN_MAX || !table) return new Set(names.keys());
    const column = table.panels[0].columns[0];
    const value = (line) => {
      const point = line.points.find((own) => own.x === column.x);
      return point && finite(point.low) ? column.better * (finite(point.y) ? point.y : point.low) : -Infinity;
    };
    const order = [...table.panels[0].lines].sort((a, b) => value(b) - value(a)).map((line) => line.name);
    return new Set([...order.slice(0, SHOWN_MAX - 4), ...order.slice(-2)]);
  }

  // ---- what a panel draws ----

  const xName = (section) => section.x || "seconds";

  function smooth(points, weight) { // an exponential mean without the pull of its first value
    let mean = 0, norm = 0;
    return points.map((point) => {
      if (!finite(point.y)) return point;
      mean = weight * mean + (1 - weight) * point.y;
      norm = weight * norm + (1 - weight);
      return {...point, y: mean / norm};
    });
  }
  function points(panel, line) {
    if (line.run) {
      const columns = line.run.columns;
      const x = columns[xName(panel.section)] || [];
      return (columns[panel.of.of] || []).map((y, i) => ({x: x[i], y, own: {y}})).filter((point) => finite(point.x));
    }
    const bins = panel.of.x.scale === "bins" ? binsOf(panel) : null; // a place on a category axis is its index
    return line.points.map((own) => {
      const middle = finite(own.low) ? (own.low + own.high) / 2 : null; // where a bar's hover is; it is no mean
      return {x: bins ? bins.indexOf(own.x) : own.x, y: finite(own.y) ? own.y : middle, own};
    });
  }
  function binsOf(panel) {
    return [...new Set(panel.of.lines.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
  }
  function dataset(panel, line) {
    const section = panel.section;
    const course = section.chart.kind === "course", bars = section.chart.kind === "bars";
    const own = colour(line.name), background = variable("--bg");
    const marked = line.run && line.run.status !== "done";
    const fits = (point) => (!panel.log.y || point.y > 0) && (bars || !panel.log.x || point.x > 0);
    const raw = points(panel, line).map((point) => (fits(point) ? point : {...point, y: null}));
    const data = course && section.smoothing > 0 ? smooth(raw, section.smoothing) : raw;
    const state = (context) => (context.raw && context.raw.own && context.raw.own.state) || "mean";
    return {
      label: line.label || line.name, name: line.name, raw, hidden: section.hidden.has(line.name),
      data: bars ? data.map((point) => ({...point, x: point.y, y: line.name})) : data,
      showLine: !bars && panel.of.x.label !== "worker", borderColor: own, backgroundColor: own, borderWidth: 1.8, borderDash: marked ? [3, 3] : dash(line.name),
      segment: {borderDash: (context) => ([context.p0, context.p1].some((point) => point.raw && point.raw.own.state === "range")
        ? [3, 4] : undefined)},
      pointStyle: (context) => (["mean", "range"].includes(state(context)) ? marker(line.name) : "crossRot"),
      pointBackgroundColor: (context) => (state(context) === "mean" ? own : background),
      pointRadius: (context) => (course ? (data.length > 60 ? 0 : 1.5) : state(context) === "mean" ? 3.2 : 5),
      spanGaps: course, pointHoverRadius: 5, pointBorderWidth: 1.4,
    };
  }

  // ---- Chart.js: what it lacks ----

  // The point of each visible series that is nearest to the pointer along x.
  Chart.Interaction.modes.column = (chart, event) => {
    const found = [];
    chart.getSortedVisibleDatasetMetas().forEach((meta) => {
      let best = null, distance = 40;
      meta.data.forEach((point, index) => {
        const away = Math.abs(point.x - event.x);
        if (!point.skip && away < distance) {
          distance = away;
          best = {element: point, datasetIndex: meta.index, index};
        }
      });
      if (best) found.push({...best, away: distance});
    });
    const least = Math.min(...found.map((item) => item.away));
    return found.filter((item) => item.away < least + 12);
  };

  // Ranges over seeds as thin bars, and what is smoothed as it was.
  const ranges = {
    id: "ranges",
    beforeDatasetsDraw(chart) {
      const {ctx, scales: {x, y}, panel} = chart;
      if (!panel.section.smoothing) return;
      chart.getSortedVisibleDatasetMetas().forEach((meta) => {
        ctx.save();
        ctx.globalAlpha = .25;
        ctx.strokeStyle = meta.dataset.options.borderColor;
        ctx.beginPath();
        let pen = false;
        chart.data.datasets[meta.index].raw.forEach((point) => {
          if (finite(point.y)) ctx[pen ? "lineTo" : "moveTo"](x.getPixelForValue(point.x), y.getPixelForValue(point.y));
          pen = finite(point.y);
        });
        ctx.stroke();
        ctx.restore();
      });
    },
    afterDatasetsDraw(chart) {
      const {ctx, scales: {x, y}, panel} = chart;
      const bars = panel.section.chart.kind === "bars";
      chart.getSortedVisibleDatasetMetas().forEach((meta) => {
        ctx.save();
        ctx.strokeStyle = chart.data.datasets[meta.index].borderColor;
        ctx.lineWidth = 1.3;
        meta.data.forEach((point, index) => {
          const {own} = chart.data.datasets[meta.index].data[index];
          if (bars && !finite(own.y) && !finite(own.low)) { // "never"
            ctx.fillStyle = variable("--dim");
            ctx.fillText(own.state, chart.chartArea.left + 6, y.getPixelForValue(meta.label) + 4);
          }
          if (point.skip || meta.data.length > 40 || !(own.high > own.low)) return;
          const scale = bars ? x : y, across = bars ? point.y : point.x;
          const [from, to] = [own.low, own.high].map((value) =>
            scale.getPixelForValue(scale.type === "logarithmic" ? Math.max(value, scale.min) : value));
          ctx.beginPath();
          [from, to].forEach((end) => {
            ctx.moveTo(bars ? end : across - 3, bars ? across - 3 : end);
            ctx.lineTo(bars ? end : across + 3, bars ? across + 3 : end);
          });
          ctx.moveTo(bars ? from : across, bars ? across : from);
          ctx.lineTo(bars ? to : across, bars ? across : to);
          ctx.stroke();
        });
        ctx.restore();
      });
    },
  };

  // ---- a chart ----

  function xLabel(panel) {
    if (panel.section.chart.kind === "course") return xName(panel.section);
    return panel.of.x.label;
  }
  function limits(axis, of) { // room around a single value, of its own size; ranges lie within; a share stays one
    const {min, max} = axis.getMinMax(false), log = axis.type === "logarithmic";
    if (min > 0 && max < 1.001 * min && !log) [axis.min, axis.max] = [.8 * min, 1.2 * max];
    if (log && min > 0) {
      const room = max < 1.2 * min ? 2 : (max / min) ** .04;
      [axis.min, axis.max] = [min / room, max * room];
    }
    if (of === axis.chart.panel.of.y) axis.chart.getSortedVisibleDatasetMetas().forEach((meta) => axis.chart.data.datasets[meta.index].data.forEach(({own}) => {
      if (finite(own.low) && (!log || own.low > 0)) axis.min = Math.min(axis.min, log ? own.low / 1.05 : own.low);
      if (finite(own.high)) axis.max = Math.max(axis.max, log ? own.high * 1.05 : own.high);
    }));
    if (of.percent && axis.max > 1) axis.max = 1;
    if (of.percent && !log && axis.min < 0) axis.min = 0;
  }
  function logTicks(axis) { // of many decades some beginnings are marked, of few also 2 and 5
    const decades = Math.log10(axis.max / axis.min), every = Math.ceil(decades / 8);
    const within = ({value}) => value >= axis.min && value <= axis.max;
    const marked = axis.ticks.filter(within).filter(({value}) => {
      const power = Math.floor(Math.log10(value) + 1e-9), first = Math.round(value / 10 ** power);
      return (first === 1 && power % every === 0) || (decades < 4 && (first === 2 || first === 5));
    });
    axis.ticks = marked.length > 2 ? marked : evenTicks(axis);
  }
  function evenTicks(axis) { // of less than a decade, as on a linear axis
    const rough = (axis.max - axis.min) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((of) => of * power >= rough), ret = [];
    for (let at = Math.ceil(axis.min / step); at * step <= axis.max; at++) ret.push({value: at * step});
    return ret;
  }
  function axes(panel, sets) {
    const {x, y} = panel.of;
    const grid = {color: variable("--line")}, color = variable("--dim");
    const title = (text) => ({display: text !== "", text, color});
    const scale = (log, of, text) => ({type: log ? "logarithmic" : "linear", grid, title: title(text),
      bounds: log || of === x ? "data" : "ticks",
      afterDataLimits: (axis) => limits(axis, of), afterBuildTicks: (axis) => {
        if (log) logTicks(axis);
        else if (of === x && axis.max > axis.min) axis.ticks = evenTicks(axis);
      },
      ticks: {color, maxTicksLimit: log ? 400 : 9, maxRotation: 0, autoSkipPadding: 8, includeBounds: false,
        callback: (value) => tick(value, of.percent)}});
    const values = [...new Set(sets.flatMap((set) => set.data.map((point) => point.x)))].sort((a, b) => a - b);
    if (panel.section.chart.kind === "bars")
      return {x: scale(panel.log.y, y, y.label),
        y: {type: "category", labels: sets.map((set) => set.name), offset: true, grid: {display: false}, ticks: {color, autoSkip: false}}};
    const ret = {x: scale(panel.log.x, x, xLabel(panel)), y: scale(panel.log.y, y, y.label)};
    if (x.scale === "bins")
      ret.x = {type: "category", labels: binsOf(panel), grid, title: title(x.label),
        ticks: {color, maxRotation: 0, autoSkipPadding: 12, callback: (at) => tick(Number(binsOf(panel)[at].toPrecision(2)))}};
    else if (panel.section.chart.kind === "lines" && values.length <= 12)
      ret.x.afterBuildTicks = (axis) => { axis.ticks = values.map((value) => ({value})); };
    return ret;
  }
  function tooltip(panel) {
    const bars = panel.section.chart.kind === "bars", {y} = panel.of;
    const runs = (own) => (own.n > 1 ? `, ${own.n} runs, ${own.seeds} seed${own.seeds > 1 ? "s" : ""}` : "");
    const same = (items) => (items.every((item) => runs(item.raw.own) === runs(items[0].raw.own)) ? runs(items[0].raw.own) : "");
    return {
      itemSort: (a, b) => (bars ? 0 : b.parsed.y - a.parsed.y),
      filter: (item, index) => index < 12,
      callbacks: {
        title: (items) => (bars || items.length === 0 ? "" : `${xLabel(panel)} ${words(panel.of.x.scale === "bins" ? items[0].raw.own.x : items[0].raw.x)}`),
        afterTitle: (items) => (items.length === 0 ? "" : same(items).replace(", ", "")),
        label: (item) => {
          const {own} = item.raw;
          const text = own.text || words(panel.section.smoothing ? item.raw.y : own.y, y.percent);
          return ` ${item.dataset.label}: ${text}${own.note ? `; ${own.note}` : ""}`;
        },
      },
    };
  }
  function draw(panel) {
    const sets = lines(panel.section.chart, panel.of).map((line) => dataset(panel, line));
    const bars = panel.section.chart.kind === "bars";
    if (panel.drawn) panel.drawn.destroy();
    if (bars) panel.canvas.parentElement.style.height = `${sets.length * 1.7 + 5}rem`;
    panel.drawn = new Chart(panel.canvas, {
      type: "line",
      data: {datasets: sets},
      plugins: [ranges, {id: "owner", beforeInit(chart) { chart.panel = panel; }}],
      options: {
        parsing: false, normalized: true, animation: false, responsive: true, maintainAspectRatio: false, scales: axes(panel, sets),
        interaction: bars ? {mode: "nearest", intersect: false} : {mode: "column", intersect: false},
        plugins: {legend: {display: false}, tooltip: tooltip(panel)},
      },
    });
  }

  // ---- files ----

  function save(name, blob) {
    const link = element("a", {href: URL.createObjectURL(blob), download: name});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function fileName(panel, suffix) {
    const text = `${panel.section.chart.id} ${panel.of.title}`.normalize().replace(/[^\p{L}\p{N}.-]+/gu, "-");
    return text.replace(/^-+|-+$/g, "").slice(0, 80) + suffix;
  }
  function csv(panel) {
    const quoted = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    };
    const rows = [];
    if (panel.section.chart.kind === "course") {
      const at = ["seconds", "epoch", "gradients"];
      rows.push(["run", "status", ...at, panel.of.of]);
      lines(panel.section.chart, panel.of).forEach(({name, run}) => (run.columns[panel.of.of] || []).forEach((value, i) =>
        rows.push([name, run.status, ...at.map((key) => (run.columns[key] || [])[i]), value])));
    } else {
      rows.push(["series", panel.of.x.label || "x", panel.of.y.label, "low", "high", "runs", "seeds", "left_out", "state", "note"]);
      panel.of.lines.forEach((line) => line.points.forEach((point) => rows.push([line.name, point.x, point.y, point.low, point.high,
        point.n, point.seeds, point.out, point.state, point.note])));
    }
    return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  }
  function png(panel) { // the title above, the chart, the names that are shown below
    const own = panel.canvas, ratio = own.width / own.clientWidth, out = element("canvas"), ctx = out.getContext("2d");
    const font = (weight) => `${weight} 13px ${getComputedStyle(document.body).fontFamily}`;
    const shown = panel.section.names.filter((name) => !panel.section.hidden.has(name));
    let x = 12, y = 0;
    ctx.font = font("");
    const places = shown.map((name) => {
      const width = ctx.measureText(name).width + 34;
      if (x + width > own.clientWidth) { x = 12; y += 20; }
      x += width;
      return {name, x: x - width, y};
    });
    out.width = own.width;
    out.height = own.height + (34 + y + 30) * ratio;
    ctx.scale(ratio, ratio);
    ctx.fillStyle = variable("--bg");
    ctx.fillRect(0, 0, out.width, out.height);
    ctx.fillStyle = variable("--ink");
    ctx.font = font("bold");
    ctx.fillText([panel.section.chart.title, panel.of.title].filter((text) => text !== "").join(": "), 12, 22);
    ctx.drawImage(own, 0, 34, own.clientWidth, own.clientHeight);
    ctx.font = font("");
    places.forEach((place) => {
      const base = 34 + own.clientHeight + place.y + 18;
      ctx.fillStyle = colour(place.name);
      ctx.fillRect(place.x, base - 6, 16, 3);
      ctx.fillStyle = variable("--ink");
      ctx.fillText(place.name, place.x + 22, base);
    });
    return new Promise((resolve) => out.toBlob(resolve));
  }

  // ---- the sections of the page ----

  function show(section, changed) {
    section.panels.forEach((panel) => panel.drawn.data.datasets.forEach((set, index) => {
      if (changed.includes(set.name)) panel.drawn.setDatasetVisibility(index, !section.hidden.has(set.name));
    }));
    section.panels.forEach((panel) => panel.drawn.update());
    section.legend.querySelectorAll("button[data-name]").forEach((own) =>
      own.setAttribute("aria-pressed", String(!section.hidden.has(own.dataset.name))));
  }
  function swatch(name) {
    const ret = element("span");
    ret.innerHTML = `<svg width="18" height="10" aria-hidden="true"><line x1="0" y1="5" x2="18" y2="5" stroke-width="3"/></svg>`;
    ret.querySelector("line").setAttribute("stroke", colour(name));
    ret.querySelector("line").setAttribute("stroke-dasharray", dash(name).join(" "));
    return ret.firstChild;
  }
  function legend(section) {
    const first = (name) => section.chart.panels.flatMap((panel) => lines(section.chart, panel)).find((line) => line.name === name);
    section.legend.replaceChildren(...section.names.map((name) => {
      const line = first(name), mark = line.run && line.run.status !== "done" ? ` (${line.run.status})` : "";
      const text = section.chart.panels.length === 1 && line.label ? line.label : name;
      const own = button("", "Hide or show", () => {
        if (!section.hidden.delete(name)) section.hidden.add(name);
        show(section, [name]);
      });
      own.dataset.name = name;
      own.setAttribute("aria-pressed", String(!section.hidden.has(name)));
      own.append(swatch(name), text + mark);
      return own;
    }));
    if (section.names.length > 4)
      section.legend.append(...[["All", []], ["None", section.names]].map(([text, hidden]) => button(text, `${text} of them`, () => {
        section.hidden = new Set(hidden);
        show(section, section.names);
      })));
  }
  function tools(section) {
    const ret = element("div", {class: "tools"});
    if (section.hidden.size > 0)
      ret.append(`${section.names.length - section.hidden.size} of ${section.names.length} are shown at first: click a name to show it.`);
    if (section.chart.kind !== "course") return ret;
    const select = element("select", {}, ...["seconds", "epoch", "gradients"]
      .filter((name) => page.runs.some((run) => run.columns[name])).map((name) => element("option", {value: name}, name)));
    select.addEventListener("change", () => {
      section.x = select.value;
      section.panels.forEach(draw);
    });
    const range = element("input", {type: "range", min: 0, max: .98, step: .02, value: 0});
    const value = element("output", {}, "off");
    range.addEventListener("input", () => {
      section.smoothing = Number(range.value);
      value.textContent = section.smoothing > 0 ? range.value : "off";
      section.panels.forEach(draw);
    });
    ret.append(element("label", {}, "x axis ", select), element("label", {}, "smoothing ", range, value));
    return ret;
  }
  function axisButton(panel, axis) {
    const name = panel.section.chart.kind === "bars" ? "axis" : axis;
    const text = () => `${name}: ${panel.log[axis] ? "log" : "linear"}`;
    const ret = button(text(), `Switch the ${axis === name ? `${axis} ` : ""}axis between linear and logarithmic`, () => {
      panel.log[axis] = !panel.log[axis];
      ret.textContent = text();
      draw(panel);
    });
    return ret;
  }
  function panelOf(section, of) {
    const panel = {section, of, log: {x: of.x.scale === "log", y: of.y.scale === "log"}};
    const title = of.title || section.chart.title;
    panel.canvas = element("canvas", {role: "img", "aria-label": `${title}: ${of.y.label}. The numbers are in the table below.`});
    const buttons = element("div", {class: "buttons"});
    if (section.chart.kind !== "bars" && of.x.scale !== "bins") buttons.append(axisButton(panel, "x"));
    buttons.append(axisButton(panel, "y"),
      button("PNG", "Save this chart as a picture", () => png(panel).then((blob) => save(fileName(panel, ".png"), blob))),
      button("CSV", "Save the numbers of this chart", () => save(fileName(panel, ".csv"), new Blob([csv(panel)], {type: "text/csv"}))));
    const labels = section.chart.panels.length > 1 ? (of.lines || []).filter((line) => line.label).map((line) => line.label) : [];
    panel.root = element("div", {class: "panel"}, element("header", {}, element("h3", {}, of.title), buttons),
      ...labels.length > 0 ? [element("p", {class: "note"}, labels.join("; "))] : [],
      element("div", {class: section.chart.kind === "bars" ? "plot bars" : "plot"}, panel.canvas));
    return panel;
  }
  function sectionOf(root, first) {
    const chart = page.charts[Number(root.dataset.chart)];
    const section = {chart, smoothing: 0, legend: element("div", {class: "legend"})};
    section.names = [...new Set(chart.panels.flatMap((panel) => lines(chart, panel).map((line) => line.name)))];
    section.hidden = new Set(section.names.filter((name) => section.names.length > SHOWN_MAX && !first.has(name)));
    section.panels = chart.panels.map((panel) => panelOf(section, panel));
    legend(section);
    root.append(section.legend, tools(section), element("div", {class: "panels"}, ...section.panels.map((panel) => panel.root)));
    sections.push(section);
    section.panels.forEach(draw);
  }
  function start() {
    page.charts.filter((chart) => chart.kind !== "table").forEach((chart) => chart.panels.forEach((panel) =>
      lines(chart, panel).forEach((line) => { if (!names.has(line.name)) names.set(line.name, names.size); })));
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    const first = featured();
    document.querySelectorAll(".plots").forEach((root) => sectionOf(root, first));
    dark.addEventListener("change", () => sections.forEach((section) => {
      legend(section);
      section.panels.forEach(draw);
    }));
  }
  start();
})();
