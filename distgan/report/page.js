"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const several = data.runs.length > 1;
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];

  // Of several runs, marks and levels have the color of their run and no line of their own in the legend.
  const named = (figure) => figure.traces.filter((trace) => !several || trace.kind === "line").length;

  function traces(figure) {
    const terms = [...new Set(figure.traces.filter((t) => t.kind === "line").map((t) => t.term))];
    return figure.traces.map((trace) => {
      const term = Math.max(0, terms.indexOf(trace.term));
      const color = style(`--c${(several ? trace.run : term) % 8}`);
      const name = several ? [data.runs[trace.run], trace.term].filter(Boolean).join(" ") : trace.term || data.runs[0];
      const drawn = { x: trace.x, y: trace.y, name, type: "scatter", showlegend: !several || trace.kind === "line", hovertemplate: "%{y:.4~g}" };
      if (trace.kind === "best") {
        return { ...drawn, mode: "markers", marker: { symbol: "star", size: 14, color: several ? color : style("--c1") } };
      }
      if (trace.kind === "floor") {
        return { ...drawn, mode: "lines", line: { color: several ? color : style("--dim"), width: 1.5, dash: "dash" } };
      }
      const dash = several ? dashes[term % dashes.length] : "solid";
      return { ...drawn, mode: trace.x.length > 60 ? "lines" : "lines+markers", line: { color, width: 2, dash }, marker: { size: 5, color } };
    });
  }

  // 1, 2 and 5 of each power of ten, for logarithmic axes.
  const marks = Array.from({ length: 60 }, (_, place) => [1, 2, 5][place % 3] * 10 ** (Math.floor(place / 3) - 8));

  function layout(figure) {
    const axis = { gridcolor: style("--line"), zerolinecolor: style("--line"), linecolor: style("--line"), automargin: true };
    return {
      margin: { l: 50, r: 10, t: 30, b: 40 },
      paper_bgcolor: style("--back"),
      plot_bgcolor: style("--back"),
      font: { color: style("--text"), family: "system-ui, sans-serif", size: 13 },
      xaxis: { ...axis, title: { text: "kimg", standoff: 4 }, unifiedhovertitle: { text: "%{x:,.4~g} kimg" } },
      yaxis: {
        ...axis,
        title: { text: figure.unit },
        ...(figure.log ? { type: "log", tickvals: marks, tickformat: ",~g" } : { type: "linear" }),
      },
      hovermode: "x unified",
      hoverlabel: { bgcolor: style("--panel"), bordercolor: style("--line"), font: { color: style("--text") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: style("--dim"), activecolor: style("--text") },
      legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top" },
      showlegend: named(figure) > 1,
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      uirevision: "kept",
    };
  }

  // The colors of a figure that is complete but for them.
  function colored(value) {
    if (Array.isArray(value)) return value.map(colored);
    if (value === null || typeof value !== "object") {
      return typeof value === "string" && value.startsWith("--") ? style(value) : value;
    }
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, colored(one)]));
  }

  const settings = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  };
  const plots = [...document.querySelectorAll("[data-figure]")];
  const complete = [...document.querySelectorAll("[data-plot]")];
  const draw = () => {
    plots.forEach(drawCurves);
    complete.forEach(drawComplete);
  };
  function drawComplete(plot) {
    const figure = data.plots[plot.dataset.plot];
    plot.style.height = "26rem";
    Plotly.react(plot, colored(figure.traces), { ...layout(figure), ...colored(figure.layout) }, settings);
  }
  function drawCurves(plot) {
    const figure = data.figures[plot.dataset.figure];
    plot.style.height = `${20 + 0.7 * Math.max(0, named(figure) - 3)}rem`;
    Plotly.react(plot, traces(figure), layout(figure), settings);
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  const slider = document.getElementById("grid");
  if (!slider) return;
  const label = document.getElementById("kimg");
  const play = document.getElementById("play");
  const ticks = [...new Set(data.grids.flatMap((grids) => grids.kimg))].sort((a, b) => a - b);
  const shown = (kimg) => kimg.toLocaleString("en", { maximumFractionDigits: 1 });

  function show() {
    const kimg = ticks[slider.value];
    label.textContent = `${shown(kimg)} kimg`;
    slider.setAttribute("aria-valuetext", label.textContent);
    data.grids.forEach((grids, run) => {
      const image = document.querySelector(`img[data-grid="${run}"]`);
      const caption = document.querySelector(`[data-caption="${run}"]`);
      const place = grids.kimg.filter((each) => each <= kimg).length - 1;
      image.hidden = place < 0;
      if (place < 0) {
        caption.textContent = grids.kimg.length ? `first samples at ${shown(grids.kimg[0])} kimg` : "no samples";
        return;
      }
      image.src = grids.sources[place];
      image.alt = `Samples of ${data.names[run]} at ${shown(grids.kimg[place])} kimg`;
      caption.textContent = `at ${shown(grids.kimg[place])} kimg`;
    });
  }

  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  slider.max = ticks.length - 1;
  slider.value = slider.max;
  slider.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (timer !== null) { stop(); return; }
    if (Number(slider.value) >= Number(slider.max)) slider.value = 0;
    play.textContent = "Pause";
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) >= Number(slider.max)) stop();
    }, 500);
  });
  show();
})();
