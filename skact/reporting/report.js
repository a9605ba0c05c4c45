"use strict";
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const part = document.getElementById("part");
  const shown = document.getElementById("shown");
  const parts = [...document.querySelectorAll("[data-part]")];
  const boxes = [...form.querySelectorAll("input[name=outcome]")];

  function apply() {
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let nParts = 0;
    let nSamples = 0;
    for (const section of parts) {
      section.hidden = part.value !== "" && section.dataset.part !== part.value;
      if (section.hidden) continue;
      nParts += 1;
      for (const group of section.querySelectorAll("[data-outcome]")) {
        group.hidden = !wanted.has(group.dataset.outcome);
      }
      nSamples += section.querySelectorAll("[data-outcome]:not([hidden]) li.sample").length;
      nSamples += section.querySelectorAll(":scope > ol > li.sample").length;
    }
    const samples = document.querySelector("li.sample") ? `, ${nSamples} samples` : "";
    shown.textContent = `Shown: ${nParts} of ${parts.length} ${form.dataset.parts}${samples}.`;
  }

  // A link leads to its part even where the filter hides it.
  function follow() {
    const target = document.getElementById(location.hash.slice(1));
    if (!target || !target.hidden) return;
    part.value = "";
    apply();
    target.scrollIntoView();
  }

  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", follow);
  form.hidden = false;
  apply();
})();
