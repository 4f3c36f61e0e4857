"use strict";
(() => {
  const STEP = 20;

  // Closed details would be missing on paper.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const item of opened) item.open = true;
  });
  addEventListener("afterprint", () => {
    for (const item of opened) item.open = false;
  });

  const controls = document.getElementById("controls");
  if (!controls) return;
  const search = document.getElementById("search");
  const method = document.getElementById("method");
  const status = document.getElementById("status");
  const more = document.getElementById("more");
  const answers = [...document.querySelectorAll(".answer")].map((element) => ({
    element,
    verdict: element.dataset.verdict,
    method: element.dataset.method,
    text: [...element.querySelectorAll(".text")]
      .map((part) => part.textContent)
      .join("\n")
      .toLowerCase(),
  }));
  let limit = STEP;

  const matching = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = controls.querySelector("input[name=verdict]:checked").value;
    return answers.filter(
      (answer) =>
        (verdict === "all" || answer.verdict === verdict) &&
        (!method || method.value === "all" || answer.method === method.value) &&
        words.every((word) => answer.text.includes(word)),
    );
  };

  const update = () => {
    const found = matching();
    const shown = new Set(found.slice(0, limit));
    for (const answer of answers) answer.element.hidden = !shown.has(answer);
    more.hidden = found.length <= limit;
    status.textContent = found.length
      ? `Showing ${shown.size} of ${found.length} answers.`
      : "No answer matches.";
    return found;
  };

  const restart = () => {
    limit = STEP;
    update();
  };

  controls.addEventListener("input", restart);
  controls.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const first = limit;
    limit += STEP;
    const target = update()[first];
    if (target) target.element.focus();
  });
  controls.hidden = false;
  update();
})();
