// A walk through the noise that a generator reads: four samples at the corners, two sliders between them. What the
// discriminator believes of each picture stands beside it, where its weights are in this build.
(function () {
  const { latest, element, button, range, picture, grey, save, normal } = covlibLive.tools;
  const CORNERS = ["top left", "top right", "bottom left", "bottom right"], STEPS = 24;

  const percent = (value) => `${Math.round(100 * value)} %`;

  // Between four samples, as long as a sample is: weights whose squares sum to one.
  function between(corners, x, y) {
    const weights = [(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y];
    const length = Math.hypot(...weights);
    return corners[0].map((_, k) => corners.reduce((sum, z, i) => sum + weights[i] / length * z[k], 0));
  }

  class Walk {
    constructor(box, network, judge) {
      const { data } = network.asset;
      Object.assign(this, { box, network, judge, data, size: data.size, seed: 1 });
      this.ask = latest(() => this.work());
      this.build();
    }

    build() {
      const { size, data, box } = this;
      this.corners = CORNERS.map((place) => picture(`A sample, ${place}`, size, true));
      this.here = picture("", size, true, { "aria-label": "What the generator makes of noise between the samples" });
      this.steps = element("canvas", { width: 384, height: 384, role: "img",
                                       "aria-label": `Change at each step${this.judge ? ", and D's belief" : ""}` });
      this.gauge = this.judge && element("meter", { min: 0, max: 1, value: 0, "aria-label": "The discriminator's belief" });
      const slider = (title) => range(title, { min: 0, max: 1, step: 0.01, value: 0.5 }, percent, () => this.ask());
      [this.across, this.down] = [slider("From left to right"), slider("From top to bottom")];
      this.across.input.setAttribute("data-first", "");
      this.said = element("p", { role: "status" });
      const mosaic = element("div", { class: "covlib-live-pictures" }, ...this.corners.map((one) => one.canvas));
      const samples = element("figcaption", {}, `Four samples of ${data.title}, class ${data.what}.`);
      const stepped = element("figcaption", {}, "Change from each step of the walk to the next; dashed: their mean."
        + (this.judge ? " Line: D's belief, from 0 at the bottom to 1 at the top." : ""));
      const met = data.real === undefined ? "" : ` Held-out slices meet with ${percent(data.real)}, their median.`;
      const belief = this.judge
        ? element("p", {}, "D's belief that it is real: ", this.gauge, " ", this.believed = element("output"), met)
        : element("p", {}, element("small", {}, "What the discriminator believes is not shown: its weights are not kept "
          + "with this run."));
      box.append(
        element("div", { class: "covlib-live-pictures covlib-live-three" }, element("figure", {}, mosaic, samples),
                this.here.figure, element("figure", {}, this.steps, stepped)),
        belief,
        element("div", { class: "covlib-live-row" }, this.across.label, this.down.label),
        element("div", { class: "covlib-live-row" },
                button("Walk from left to right", () => this.go()), button("New samples", () => this.fresh()),
                button("Save the picture", () => save([this.here.canvas], this.network.asset.name))),
        this.said);
      box.addEventListener("keydown", (event) => event.stopPropagation());
    }

    async made(noise) {
      const { image } = await this.network.run({ noise: { data: noise, dims: [1, this.data.latent] } });
      return image.data;
    }

    // Shows and gives back the discriminator's belief that an image is real, 0 to 1; nothing where it is not here.
    async judged(image) {
      if (!this.judge) return undefined;
      const { size } = this, found = await this.judge.run({ image: { data: image, dims: [1, 1, size, size] } });
      const [belief] = found.belief.data;
      this.gauge.value = belief;
      this.believed.textContent = percent(belief);
      return belief;
    }

    show(one, image) {
      one.show((colour) => image.forEach((value, k) => colour(k, grey(value), grey(value), grey(value))));
    }

    async fresh() {
      const { latent } = this.data;
      this.noise = CORNERS.map((_, k) => normal(1000 * this.seed + k, latent));
      this.seed += 1;
      this.chart([]);
      for (const [k, noise] of this.noise.entries()) this.show(this.corners[k], await this.made(noise));
      await this.ask();
    }

    async work() {
      const [x, y] = [this.across, this.down].map(({ input }) => Number(input.value)), began = performance.now();
      const image = await this.made(between(this.noise, x, y));
      this.show(this.here, image);
      this.here.caption.textContent = "Between them.";
      await this.judged(image);
      this.said.textContent = `${Math.round(100 * x)} % to the right, ${Math.round(100 * y)} % down. `
        + `Drawn in ${Math.round(performance.now() - began)} ms.`;
    }

    // The whole way from left to right at the height of the other slider: how much the picture changes at each step.
    async go() {
      const y = Number(this.down.input.value), changes = [], beliefs = [];
      let before = null;
      for (let step = 0; step <= STEPS; step++) {
        const image = await this.made(between(this.noise, step / STEPS, y));
        if (before) changes.push(image.reduce((sum, value, k) => sum + Math.abs(value - before[k]), 0) / image.length);
        this.show(this.here, image);
        this.across.input.value = step / STEPS;
        this.across.tell();
        before = image;
        if (this.judge) beliefs.push(await this.judged(image));
      }
      this.chart(changes, beliefs);
      const mean = changes.reduce((sum, value) => sum + value) / STEPS, most = Math.max(...changes);
      this.said.textContent = `${STEPS} steps: a pixel changes by ${(50 * mean).toFixed(1)} % of the grey scale in the `
        + `mean step; the largest is ${(most / mean).toFixed(1)} times that. Where a walk jumps, one is much larger.`
        + (this.judge ? ` D's belief goes from ${percent(Math.min(...beliefs))} to ${percent(Math.max(...beliefs))}.` : "");
    }

    chart(changes, beliefs = []) {
      const context = this.steps.getContext("2d"), { width, height } = this.steps, most = Math.max(...changes, 1e-9);
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
      if (!changes.length) return;
      const wide = width / changes.length, room = 0.9 * height / most;
      context.fillStyle = "#0072b2";
      changes.forEach((value, k) => context.fillRect(k * wide + 1, height - value * room, wide - 2, value * room));
      const mean = changes.reduce((sum, value) => sum + value) / changes.length;
      context.strokeStyle = "#222";
      context.setLineDash([8, 6]);
      context.beginPath();
      context.moveTo(0, height - mean * room);
      context.lineTo(width, height - mean * room);
      context.stroke();
      context.setLineDash([]);
      context.strokeStyle = "#d55e00";
      context.lineWidth = 3;
      context.beginPath();
      beliefs.forEach((value, k) => context.lineTo(k * width / (beliefs.length - 1), height * (1 - value)));
      context.stroke();
      context.lineWidth = 1;
    }
  }

  covlibLive.kinds.walk = async (box, network) => {
    const { judge } = network.asset.more;
    await new Walk(box, network, judge && await covlibLive.open(judge)).fresh();
  };
})();
