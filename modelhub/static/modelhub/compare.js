/* Several runs' curves over each other: a chart for each metric that two or more of them wrote. */
(() => {
  "use strict";
  const section = document.getElementById("compare-curves");
  const grid = section.querySelector(".charts");
  const runs = [...section.querySelectorAll("[data-url]")];
  // Hues that keep apart from each other, of one lightness, in light and in dark.
  const stroke = (index) => `hsl(${(210 + (index * 360) / runs.length) % 360} 65% 50%)`;

  function colour(token) {
    grid.style.color = `var(${token})`;
    const value = getComputedStyle(grid).color;
    grid.style.color = "";
    return value;
  }

  function written(value) {
    if (value === null || value === undefined) return "–";
    if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e");
    return Number(value.toPrecision(4)).toString();
  }

  /* Runs write at steps of their own: one list of steps, with nulls where a run has no value. */
  function joined(curves) {
    const steps = [...new Set(curves.flatMap((curve) => curve?.steps ?? []))].sort((a, b) => a - b);
    const place = new Map(steps.map((step, index) => [step, index]));
    return [
      steps,
      ...curves.map((curve) => {
        const values = Array(steps.length).fill(null);
        curve?.steps.forEach((step, index) => { values[place.get(step)] = curve.values[index]; });
        return values;
      }),
    ];
  }

  function chartDraw(name, curves) {
    const figure = document.createElement("figure");
    figure.className = "chart";
    const caption = document.createElement("figcaption");
    caption.textContent = name.replaceAll("_", " ");
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.setAttribute("role", "img");
    const said = runs.map((run, index) => curves[index] && `${run.dataset.name} ends at ${written(curves[index].values.at(-1))}`);
    plot.setAttribute("aria-label", `${name}: ${said.filter(Boolean).join(", ")}`);
    figure.append(caption, plot);
    grid.append(figure);
    const axis = { stroke: colour("--ink-3"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const size = () => ({ width: Math.max(plot.clientWidth, 120), height: Math.max(plot.clientHeight, 120) });
    const chart = new uPlot(
      {
        ...size(),
        legend: { show: false },
        scales: { x: { time: false } },
        axes: [{ ...axis, size: 32 }, { ...axis, size: 64, values: (_, marks) => marks.map(written) }],
        series: [{}, ...runs.map((_, index) => ({ stroke: stroke(index), width: 1.75, spanGaps: true }))],
      },
      joined(curves),
      plot,
    );
    new ResizeObserver(() => chart.setSize(size())).observe(plot);
  }

  async function seriesOf(run) {
    const response = await fetch(run.dataset.url);
    return response.ok ? (await response.json()).series : {};
  }

  async function draw() {
    const series = await Promise.all(runs.map(seriesOf));
    const names = [...new Set(series.flatMap((one) => Object.keys(one)))].sort();
    for (const name of names) {
      const curves = series.map((one) => one[name]);
      if (curves.filter(Boolean).length > 1) chartDraw(name, curves);
    }
    section.querySelector("[data-none]").hidden = grid.childElementCount > 0;
  }

  runs.forEach((run, index) => { run.querySelector(".swatch").style.background = stroke(index); });
  draw();
})();
