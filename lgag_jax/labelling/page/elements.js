// What both pages do with the elements of their document.

export const $ = (id) => document.getElementById(id);

export function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

export function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}
