// A field and a button: a click on it, or Enter, sends what the field holds, in one message. A message back empties the field.
function render({ model, el }) {
  const form = document.createElement("form");
  form.className = "rk-entry";
  const label = document.createElement("label");
  const input = document.createElement("input");
  input.placeholder = model.get("placeholder");
  input.autocomplete = "off";
  label.append(model.get("label"), " ", input);
  const button = document.createElement("button");
  button.className = "jupyter-button";
  button.textContent = model.get("action");
  form.append(label, button);
  form.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the letters
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // JupyterLab does so too, so that Enter would send nothing
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    model.send({ text: input.value });
  });
  model.on("msg:custom", () => (input.value = ""));
  el.append(form);
}

export default { render };
