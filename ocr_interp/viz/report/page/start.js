// Draws every panel in its place; one that fails says so and leaves the others alone.
theme();
document.querySelectorAll(".slider").forEach((host) => stepSlider(host, times[Number(host.dataset.section)]));
document.querySelectorAll(".picture").forEach((host) => {
  const data = content.panels[Number(host.dataset.panel)];
  const time = times[Number(host.closest("figure").dataset.section)];
  try {
    drawers[data.kind](host, data, time);
  } catch (error) {
    host.append(html("p", { class: "note" }, `This part could not be drawn: ${error.message}`));
    console.error(error);
  }
});
