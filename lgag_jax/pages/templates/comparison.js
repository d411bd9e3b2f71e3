// Lays the pictures of a scene over each other, with a slider. Without scripts they stay side by side.
for (const hint of document.querySelectorAll(".hint")) hint.hidden = false;
for (const comparison of document.querySelectorAll(".comparison")) {
  const dates = comparison.querySelector(".dates"), controls = comparison.querySelector(".controls");
  const figures = [...dates.children], slider = controls.querySelector("input[type=range]");
  const sides = controls.querySelectorAll(".side");
  const show = () => {
    const choice = controls.querySelector("input[type=radio]:checked");
    const shown = choice ? choice.value.split(" ").map(Number) : [0, 1];
    figures.forEach((figure, number) => {
      figure.classList.toggle("unused", !shown.includes(number));
      figure.classList.toggle("above", number === shown[1]);
    });
    const [left, right] = shown.map(number => figures[number].querySelector("figcaption").textContent);
    sides[0].textContent = left;
    sides[1].textContent = right;
    slider.setAttribute("aria-label", `Border between ${left} (left) and ${right} (right), in percent`);
    dates.style.setProperty("--border", `${slider.value}%`);
  };
  const drag = event => {
    const box = dates.getBoundingClientRect();
    slider.value = 100 * (event.clientX - box.left) / box.width;
    show();
  };
  dates.addEventListener("pointerdown", event => {
    dates.setPointerCapture(event.pointerId);
    drag(event);
  });
  dates.addEventListener("pointermove", event => event.buttons && drag(event));
  dates.addEventListener("dragstart", event => event.preventDefault());
  controls.addEventListener("input", show);
  controls.hidden = false;
  comparison.classList.add("with-slider");
  show();
}
