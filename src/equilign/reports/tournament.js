"use strict";
(() => {
  const STEP = 10;
  const MOST_IN_GRAPH = 12;
  const SVG = "http://www.w3.org/2000/svg";

  // Closed details would be missing on paper.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const item of opened) item.open = true;
  });
  addEventListener("afterprint", () => {
    for (const item of opened) item.open = false;
  });

  const get = (id) => document.getElementById(id);
  const [controls, list, status, paging] = ["controls", "list", "status", "paging"].map(get);
  const names = [...get("player").options].slice(1).map((option) => option.textContent);
  const size = names.length;

  const unpack = async () => {
    const coded = atob(get("data").content.textContent);
    const bytes = Uint8Array.from(coded, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  // Every text goes into the page as text, never as markup.
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const draw = (tag, attributes, text) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const begin = (data) => {
    const total = data.prompts.length;
    // Verdicts are columns of thousandths, one for each pair i < j; -1 is no verdict.
    const column = (i, j) => data.wins[(i * (2 * size - i - 1)) / 2 + (j - i - 1)];
    const win = (p, i, j) => {
      if (i === j) return 500;
      const found = i < j ? column(i, j)[p] : column(j, i)[p];
      return found < 0 || i < j ? found : 1000 - found;
    };
    const mean = (p, i) => {
      let sum = 0, count = 0;
      for (let j = 0; j < size; j += 1) {
        const found = i === j ? -1 : win(p, i, j);
        if (found >= 0) { sum += found; count += 1; }
      }
      return count ? sum / count : -1;
    };
    const cycles = (p) => {
      const found = new Set();
      for (let i = 0; i < size; i += 1)
        for (let j = 0; j < size; j += 1)
          if (win(p, i, j) > 500)
            for (let k = 0; k < size; k += 1)
              if (win(p, j, k) > 500 && win(p, k, i) > 500) found.add(`${i} ${j}`);
      return found;
    };
    let searched = null;
    const texts = () => {
      searched ??= data.prompts.map((prompt, p) =>
        [prompt, ...data.answers.flatMap((player) => player[p])].join("\n").toLowerCase(),
      );
      return searched;
    };
    let circular = null;
    const inCircles = (p) => {
      circular ??= data.prompts.map((_, q) => cycles(q).size > 0);
      return circular[p];
    };

    const percent = (value) => (value < 0 ? "no verdict" : `${(value / 10).toFixed(value % 10 ? 1 : 0)} %`);
    const outcome = (value) =>
      value < 0 ? "none" : value > 500 ? "won" : value < 500 ? "lost" : "tie";

    let found = [];
    let page = 0;
    const match = () => {
      const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const [player, against] = [Number(get("player").value), Number(get("against").value)];
      const wanted = get("outcome").value;
      const circle = get("cyclic").checked;
      found = [];
      for (let p = 0; p < total; p += 1) {
        if (circle && !inCircles(p)) continue;
        if (wanted !== "any" && player >= 0) {
          const value = against < 0 ? mean(p, player) : win(p, player, against);
          if (outcome(value) !== wanted) continue;
        }
        if (words.length && !words.every((word) => texts()[p].includes(word))) continue;
        found.push(p);
      }
    };

    const graph = (p) => {
      const box = draw("svg", { viewBox: "0 0 320 250", class: "graph", role: "img" });
      const said = [];
      const circles = cycles(p);
      const spots = names.map((_, i) => {
        const angle = -Math.PI / 2 + (2 * Math.PI * i) / size;
        return [160 + 85 * Math.cos(angle), 125 + 85 * Math.sin(angle)];
      });
      for (let i = 0; i < size; i += 1)
        for (let j = 0; j < size; j += 1) {
          if (win(p, i, j) <= 500) continue;
          said.push(`${names[i]} beats ${names[j]}`);
          const [[x1, y1], [x2, y2]] = [spots[i], spots[j]];
          const length = Math.hypot(x2 - x1, y2 - y1);
          const [u, v] = [(x2 - x1) / length, (y2 - y1) / length];
          const [tipX, tipY] = [x2 - 12 * u, y2 - 12 * v];
          const kind = circles.has(`${i} ${j}`) ? "circle" : "";
          const width = 1 + (3 * (win(p, i, j) - 500)) / 500;
          box.append(
            draw("line", {
              x1: x1 + 10 * u, y1: y1 + 10 * v, x2: tipX - 6 * u, y2: tipY - 6 * v,
              class: `edge ${kind}`, "stroke-width": width,
            }),
            draw("path", {
              d: `M${tipX} ${tipY}L${tipX - 10 * u - 5 * v} ${tipY - 10 * v + 5 * u}L${tipX - 10 * u + 5 * v} ${tipY - 10 * v - 5 * u}Z`,
              class: kind ? "circle-head" : "head",
            }),
          );
        }
      spots.forEach(([x, y], i) => {
        const side = x < 150 ? "end" : x > 170 ? "start" : "middle";
        const shift = side === "middle" ? (y < 125 ? [0, -15] : [0, 26]) : [side === "end" ? -14 : 14, 4];
        const name = names[i].length > 14 ? `${names[i].slice(0, 13)}…` : names[i];
        box.append(
          draw("circle", { cx: x, cy: y, r: 8, class: "node" }),
          draw("text", { x: x + shift[0], y: y + shift[1], "text-anchor": side }, name),
        );
      });
      box.setAttribute("aria-label", said.join(", ") || "nobody beats anybody");
      box.prepend(draw("title", {}, said.join(", ") || "nobody beats anybody"));
      return box;
    };

    const verdicts = (p) => {
      const table = make("table");
      const head = make("tr");
      for (const text of ["Player", "Against", "Preferred"]) {
        const cell = make("th", text === "Preferred" ? "number" : "", text);
        cell.scope = "col";
        head.append(cell);
      }
      const top = make("thead");
      top.append(head);
      const body = make("tbody");
      for (let i = 0; i < size; i += 1)
        for (let j = i + 1; j < size; j += 1) {
          const row = make("tr");
          row.append(make("td", "", names[i]), make("td", "", names[j]), make("td", "number", percent(win(p, i, j))));
          body.append(row);
        }
      table.append(top, body);
      return table;
    };

    const item = (p) => {
      const element = make("li", "answer");
      element.tabIndex = -1;
      const title = make("h3");
      title.append(make("b", "", `Prompt ${p + 1}`));
      if (inCircles(p)) title.append(make("span", "", "the answers beat each other in a circle"));
      const prompt = make("p", "text prompt", data.prompts[p]);
      prompt.dir = "auto";
      const pairs = make("dl", "pair");
      names.forEach((name, i) => {
        const part = make("div");
        const term = make("dt");
        const value = mean(p, i);
        term.append(make("b", "", name), ` · ${value < 0 ? "no verdict" : `preferred in ${percent(Math.round(value))}`}`);
        part.append(term);
        for (const text of data.answers[i][p]) {
          const answer = make("dd", "text", text);
          answer.dir = "auto";
          part.append(answer);
        }
        pairs.append(part);
      });
      element.append(title, prompt, pairs);
      const more = make("details");
      more.append(make("summary", "", "Who beats whom here"));
      more.addEventListener("toggle", () => {
        if (!more.open || more.childElementCount > 1) return;
        if (size <= MOST_IN_GRAPH) more.append(graph(p));
        more.append(verdicts(p));
      });
      element.append(more);
      return element;
    };

    const show = () => {
      const pages = Math.max(1, Math.ceil(found.length / STEP));
      page = Math.min(Math.max(page, 0), pages - 1);
      const part = found.slice(page * STEP, (page + 1) * STEP);
      list.replaceChildren(...part.map(item));
      const first = page * STEP + 1;
      status.textContent = part.length
        ? `Showing ${first.toLocaleString("en")} to ${(first + part.length - 1).toLocaleString("en")} of ${found.length.toLocaleString("en")} prompts.`
        : "No prompt matches.";
      paging.hidden = pages < 2;
      get("page").value = page + 1;
      get("page").max = pages;
      get("pages").textContent = `of ${pages.toLocaleString("en")}`;
      get("first").disabled = get("previous").disabled = page === 0;
      get("next").disabled = get("last").disabled = page === pages - 1;
    };
    const turn = (to) => {
      page = to;
      show();
      const target = list.firstElementChild;
      if (target) target.focus();
    };
    const restart = () => {
      // An outcome is somebody's: without a player there is nothing to choose from.
      get("outcome").disabled = get("against").disabled = get("player").value === "-1";
      page = 0;
      match();
      show();
    };
    controls.addEventListener("input", restart);
    controls.addEventListener("submit", (event) => event.preventDefault());
    get("first").addEventListener("click", () => turn(0));
    get("previous").addEventListener("click", () => turn(page - 1));
    get("next").addEventListener("click", () => turn(page + 1));
    get("last").addEventListener("click", () => turn(Infinity));
    get("page").addEventListener("change", () => turn(Number(get("page").value) - 1 || 0));
    controls.hidden = false;
    restart();
  };

  unpack().then(begin, (error) => {
    status.textContent = `This browser cannot unpack the prompts (${error.message}); the file prompts.jsonl beside this page has them.`;
  });
})();
