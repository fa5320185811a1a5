// A field and a button: a click on it, or Enter, sends what the field holds, in one message. Until a message comes back, it is "waiting".
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
    wait(true);
    model.send({ text: input.value });
  });
  function wait(busy) {
    button.disabled = input.readOnly = busy; // a second click would find nothing to add
    form.classList.toggle("rk-waiting", busy);
  }
  model.on("msg:custom", ({ clear }) => {
    wait(false);
    if (clear) input.value = "";
  });
  el.append(form);
}

export default { render };
