/* A run's page: its curves, drawn anew while the run goes on, and a log that stays at its end. */
(() => {
  "use strict";
  const section = document.getElementById("run-curves");
  const grid = section.querySelector(".charts");
  const POLL_MS = 2000;
  const charts = new Map(); // name → {figure, latest, plot, uplot, data}
  let seen = "";

  /* A token's colour as the canvas needs it: custom properties may hold light-dark(). */
  function colour(token) {
    grid.style.color = `var(${token})`;
    const value = getComputedStyle(grid).color;
    grid.style.color = "";
    return value;
  }

  /* 0.5123, 1200, 9e-6: as short as the number allows. */
  function written(value) {
    if (value === null || value === undefined) return "–";
    if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e");
    return Number(value.toPrecision(4)).toString();
  }

  const hasBand = ([, lows, highs]) => lows.some((low, i) => low !== highs[i]);

  function chartMake(name) {
    const figure = document.createElement("figure");
    figure.className = "chart";
    const caption = document.createElement("figcaption");
    const title = document.createElement("span");
    title.textContent = name.replaceAll("_", " ");
    const latest = document.createElement("span");
    latest.className = "muted num";
    caption.append(title, latest);
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.setAttribute("role", "img");
    figure.append(caption, plot);
    grid.append(figure);
    const chart = { name, latest, plot, uplot: null, data: null };
    new ResizeObserver(() => chart.uplot?.setSize(sizeOf(plot))).observe(plot);
    charts.set(name, chart);
    return chart;
  }

  const sizeOf = (plot) => ({ width: Math.max(plot.clientWidth, 120), height: Math.max(plot.clientHeight, 120) });

  function chartDraw(chart) {
    chart.uplot?.destroy();
    const accent = colour("--accent");
    const axis = { stroke: colour("--ink-3"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const isBand = hasBand(chart.data);
    const steps = chart.data[0];
    const points = { show: steps.length < 40, size: 5, fill: accent };
    chart.uplot = new uPlot(
      {
        ...sizeOf(chart.plot),
        legend: { show: false },
        cursor: { y: false, points: { size: 7 } },
        scales: { x: { time: false } },
        axes: [{ ...axis, size: 32 }, { ...axis, size: 64, values: (_, marks) => marks.map(written) }],
        series: [
          {},
          { show: isBand, stroke: "transparent", points: { show: false } },
          { show: isBand, stroke: "transparent", points: { show: false } },
          { stroke: accent, width: 1.75, points },
        ],
        bands: isBand ? [{ series: [2, 1], fill: colour("--accent-line") }] : [],
        hooks: { setCursor: [(plot) => latestWrite(chart, plot.cursor.idx)] },
      },
      chart.data,
      chart.plot,
    );
  }

  /* The caption says the value under the pointer, or the newest one. */
  function latestWrite(chart, index) {
    const [steps, , , values] = chart.data;
    const at = index ?? steps.length - 1;
    chart.latest.textContent = `${written(values[at])} at step ${steps[at]}`;
  }

  function seriesShow(series) {
    for (const [name, curve] of Object.entries(series)) {
      const chart = charts.get(name) ?? chartMake(name);
      const isFirst = chart.data === null;
      const hadBand = !isFirst && hasBand(chart.data);
      // The line comes last: it is drawn over the band.
      chart.data = [curve.steps, curve.lows, curve.highs, curve.values];
      if (isFirst || hadBand !== hasBand(chart.data)) chartDraw(chart);
      else chart.uplot.setData(chart.data);
      latestWrite(chart, null);
      const lowest = Math.min(...curve.lows);
      const highest = Math.max(...curve.highs);
      chart.plot.setAttribute(
        "aria-label",
        `${name}: ${curve.steps.length} points, from ${written(curve.values[0])} to ${written(curve.values.at(-1))}, between ${written(lowest)} and ${written(highest)}`,
      );
    }
    section.querySelector("[data-none]").hidden = charts.size > 0;
  }

  async function poll() {
    let isEnded = false;
    try {
      const response = await fetch(`${section.dataset.url}?seen=${encodeURIComponent(seen)}`, {
        headers: { "X-Unattended": "1" }, // does not count as somebody's presence
      });
      if (response.status === 200) {
        const found = await response.json();
        ({ seen, is_ended: isEnded } = found);
        seriesShow(found.series);
      } else if (response.status !== 204) isEnded = response.status < 500; // signed out, or gone
    } catch {
      /* The server is away for a moment: ask again. */
    }
    if (!isEnded) setTimeout(poll, document.hidden ? POLL_MS * 5 : POLL_MS);
  }

  /* The log follows its end, unless someone has scrolled up to read. */
  const isAtEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  let reading = null;
  function logFollow() {
    const log = document.querySelector("pre[data-follow]");
    if (log) log.scrollTop = reading ?? log.scrollHeight;
  }
  document.addEventListener("htmx:beforeSwap", () => {
    const log = document.querySelector("pre[data-follow]");
    reading = log && !isAtEnd(log) ? log.scrollTop : null;
  });
  document.addEventListener("htmx:afterSettle", logFollow);
  document.addEventListener("rondo:theme", () => charts.forEach(chartDraw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(chartDraw));

  logFollow();
  poll();
})();
