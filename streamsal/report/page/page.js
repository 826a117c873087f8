"use strict";
// One player per film: its position is a frame number; film, curves, clock and contact sheet follow it.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDE = 1000, HIGH = 100; // units of a plot, stretched to whatever size it has

  /** When frames are shown, in seconds of the film's own clock; frame k is on screen until k + 1 begins. */
  function clockOf(film) {
    const { first, step, runs, unit } = film.times;
    const starts = new Float64Array(film.frames + 1);
    if (step) {
      for (let k = 0; k <= film.frames; k++) starts[k] = first + k * step;
    } else {
      let k = 0, ticks = 0;
      starts[0] = first;
      for (const [delta, count] of runs) {
        for (let i = 0; i < count; i++) starts[++k] = first + (ticks += delta) * unit;
      }
    }
    starts[film.frames] = film.end;
    return {
      starts,
      at(seconds) {
        let low = 0, high = film.frames - 1;
        while (low < high) {
          const middle = (low + high + 1) >> 1;
          if (starts[middle] <= seconds + 1e-4) low = middle; else high = middle - 1;
        }
        return low;
      },
      middle: (k) => (starts[k] + starts[k + 1]) / 2,
      share: (k) => (starts[k] - starts[0]) / (starts[film.frames] - starts[0] || 1),
    };
  }

  function timecode(seconds, digits = 3) {
    const rounded = Math.round(seconds * 10 ** digits) / 10 ** digits;
    const h = Math.floor(rounded / 3600), m = Math.floor(rounded / 60) % 60, s = (rounded % 60).toFixed(digits);
    const padded = s.padStart(digits ? digits + 3 : 2, "0");
    return h ? `${h}:${String(m).padStart(2, "0")}:${padded}` : `${m}:${padded}`;
  }

  function drawn(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  /** A curve as a path; values that are not known leave a gap. */
  function pathOf(curve, panel, clock) {
    const { low, high } = panel;
    let path = "", pen = "M";
    curve.frame.forEach((frame, i) => {
      const value = curve.value[i];
      if (value === null) { pen = "M"; return; }
      const x = (clock.share(frame) * WIDE).toFixed(2);
      const y = (HIGH - ((value - low) / (high - low || 1)) * HIGH).toFixed(2);
      path += `${pen}${x} ${y}`;
      if (pen === "M" && (i + 1 === curve.frame.length || curve.value[i + 1] === null)) path += "h.5"; // a lone point
      pen = "L";
    });
    return path;
  }

  function drawPanel(place, panel, film, clock) {
    const svg = place.querySelector("svg");
    for (const frame of film.shots.slice(1)) {
      const x = clock.share(frame) * WIDE;
      svg.append(drawn("line", { class: "cut", x1: x, x2: x, y1: 0, y2: HIGH }));
    }
    for (const curve of panel.curves) {
      const path = drawn("path", { d: pathOf(curve, panel, clock) });
      path.style.setProperty("--c", `var(--c${curve.color})`);
      if (curve.dash) path.style.setProperty("--pattern", curve.dash);
      svg.append(path);
    }
  }

  /** Shots as blocks in turn, borders of tasks as strokes, frames without a picture in red. */
  function drawStrip(svg, film, clock) {
    const block = (from, to, kind, y, height) => {
      const x = clock.share(from) * WIDE;
      const width = Math.max(clock.share(to) * WIDE - x, kind === "hole" ? 1.5 : 0);
      svg.append(drawn("rect", { class: kind, x, y, width, height }));
    };
    film.shots.forEach((from, i) => block(from, film.shots[i + 1] ?? film.frames, i % 2 ? "odd" : "even", 10, 55));
    for (const frame of film.shards) {
      const x = clock.share(frame) * WIDE;
      svg.append(drawn("line", { class: "shard", x1: x, x2: x, y1: 0, y2: 80 }));
    }
    for (const [from, to] of film.holes) block(from, to, "hole", 70, 30);
  }

  function drawAxis(axis, clock, film) {
    const total = clock.starts[film.frames] - clock.starts[0];
    const most = Math.max(2, Math.floor(axis.clientWidth / 90));
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    const step = steps.find((each) => total / each <= most) ?? 14400;
    axis.replaceChildren();
    for (let t = 0; t <= total * 0.97; t += step) {
      const mark = document.createElement("span");
      mark.textContent = timecode(t, step < 1 ? 1 : 0);
      mark.style.left = `${(t / total) * 100}%`;
      axis.append(mark);
    }
  }

  /** Index of the point of a curve that is nearest to a frame. */
  function nearest(frames, wanted) {
    let low = 0, high = frames.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (frames[middle] < wanted) low = middle + 1; else high = middle;
    }
    return low > 0 && wanted - frames[low - 1] < frames[low] - wanted ? low - 1 : low;
  }

  /** Draws the fixations of a frame as rings over the video, which may show the film twice side by side. */
  function ringsOver(svg, video, film) {
    const { after, frames, x, y, grid } = film.looks, rows = Array.from({ length: film.frames }, () => []);
    after.reduce((first, more, k) => {
      for (let i = 0; i < frames[k]; i++) rows[first + more + i].push(k);
      return first + more;
    }, 0);
    return (frame) => {
      const width = video.videoWidth, height = video.videoHeight;
      if (!width) return;
      const twice = width / height > 1.75 * film.aspect ? 2 : 1, r = Math.min(width / twice, height) / 45;
      const rings = rows[frame].map((k) => {
        const left = ((x[k] + 0.5) / grid) * (width / twice) - r, middle = ((y[k] + 0.5) / grid) * height;
        return `M${left.toFixed(1)} ${middle.toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
      }).join("");
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      for (const path of svg.children) path.setAttribute("d", rings);
    };
  }

  function player(article, film) {
    const clock = clockOf(film);
    const find = (selector) => article.querySelector(selector);
    const video = find("video"), timeline = find(".timeline"), play = find(".play"), still = find(".screen img");
    const thumbs = [...document.querySelectorAll(`[data-film="${article.dataset.number}"] [data-frame]`)];
    const panels = [...article.querySelectorAll(".panel")];
    const gaze = find(".gaze"), rings = gaze ? ringsOver(find(".looks"), video, film) : () => {};
    let frame = 0; // the position
    let wanted = null; // a frame that the film is still to be sent to
    let offset = null; // the film's clock minus ours, measured at its first picture

    panels.forEach((place, i) => drawPanel(place, film.panels[i], film, clock));
    drawStrip(find(".strip svg"), film, clock);
    const axis = find(".axis");
    new ResizeObserver(() => drawAxis(axis, clock, film)).observe(axis);

    function show(number) {
      frame = number;
      const seconds = clock.starts[frame] - clock.starts[0];
      const text = timecode(seconds);
      timeline.style.setProperty("--at", clock.share(frame));
      timeline.setAttribute("aria-valuenow", frame);
      timeline.setAttribute("aria-valuetext", `frame ${frame} of ${film.frames}, ${text}`);
      find(".frame").textContent = frame;
      rings(frame);
      find(".time").textContent = text;
      panels.forEach((place, i) => place.querySelectorAll("output").forEach((output, j) => {
        const curve = film.panels[i].curves[j], at = nearest(curve.frame, frame), value = curve.value[at];
        const near = curve.frame[at] === frame ? "" : "≈\u2009";
        output.textContent = value === null ? "none" : near + value.toFixed(film.panels[i].digits);
      }));
      let here = null;
      for (const thumb of thumbs) if (!here || Number(thumb.dataset.from) <= frame) here = thumb;
      for (const thumb of thumbs) thumb.classList.toggle("here", thumb === here);
      if (here && article.classList.contains("nofilm")) still.src = here.querySelector("img")?.src ?? "";
    }

    function send() {
      if (wanted === null || offset === null || video.seeking) return;
      const target = clock.middle(wanted) + offset;
      wanted = null;
      video.currentTime = target;
    }

    function seek(number) {
      const bounded = Math.min(Math.max(Math.round(number), 0), film.frames - 1);
      wanted = bounded;
      video.preload = "auto"; // until somebody looks at it, a film is not read
      show(bounded);
      send();
    }

    function toggle() {
      if (article.classList.contains("nofilm")) return;
      if (video.paused) video.play().catch(() => {}); else video.pause();
    }

    // Pictures that come while this is called are not told of: at rest it is the time that says which one is shown.
    function presented(now, facts) {
      if (offset === null) {
        offset = facts.mediaTime - clock.starts[0];
        send();
      } else if (!video.paused && !video.seeking && wanted === null) {
        show(clock.at(facts.mediaTime - offset));
      }
      video.requestVideoFrameCallback(presented);
    }

    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback(presented);
    } else {
      video.addEventListener("loadeddata", () => { offset ??= 0; send(); });
      const eachPicture = () => {
        if (!video.seeking && wanted === null) show(clock.at(video.currentTime - (offset ?? 0)));
        if (!video.paused) requestAnimationFrame(eachPicture);
      };
      video.addEventListener("play", eachPicture);
    }
    video.addEventListener("seeked", send);
    video.addEventListener("play", () => { play.textContent = "Pause"; });
    video.addEventListener("pause", () => {
      play.textContent = "Play";
      if (video.ended) show(film.frames - 1); else seek(frame); // of the picture and the time, the picture counts
    });
    video.addEventListener("error", () => { article.classList.add("nofilm"); show(frame); });
    if (video.error || !video.getAttribute("src")) article.classList.add("nofilm");

    gaze?.addEventListener("change", () => article.classList.toggle("nogaze", !gaze.checked));
    video.addEventListener("loadedmetadata", () => rings(frame));
    const shotOf = (number) => film.shots.findLastIndex((start) => start <= number);
    const shotStart = (number) => film.shots[Math.min(Math.max(number, 0), film.shots.length - 1)];
    const steps = {
      "-1": () => seek(frame - 1),
      "+1": () => seek(frame + 1),
      shotBack: () => seek(shotStart(shotOf(frame) - (frame === shotStart(shotOf(frame)) ? 1 : 0))),
      shotOn: () => seek(shotStart(shotOf(frame) + 1)),
    };
    const second = Math.max(1, Math.round(film.rate));
    const keys = {
      ArrowLeft: (event) => seek(frame - (event.shiftKey ? second : 1)),
      ArrowRight: (event) => seek(frame + (event.shiftKey ? second : 1)),
      ArrowDown: (event) => seek(frame - (event.shiftKey ? second : 1)),
      ArrowUp: (event) => seek(frame + (event.shiftKey ? second : 1)),
      PageUp: steps.shotBack,
      PageDown: steps.shotOn,
      Home: () => seek(0),
      End: () => seek(film.frames - 1),
      " ": toggle,
      g: () => gaze?.click(),
    };
    timeline.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key](event);
    });
    const seekTo = (event) => {
      const box = axis.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      seek(clock.at(clock.starts[0] + share * (clock.starts[film.frames] - clock.starts[0])));
    };
    timeline.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      timeline.setPointerCapture(event.pointerId);
      seekTo(event);
    });
    timeline.addEventListener("pointermove", (event) => {
      if (timeline.hasPointerCapture(event.pointerId)) seekTo(event);
    });
    play.addEventListener("click", toggle);
    video.addEventListener("click", toggle);
    for (const button of article.querySelectorAll("[data-step]")) {
      button.addEventListener("click", steps[button.dataset.step]);
    }
    find(".speed").addEventListener("change", (event) => {
      video.defaultPlaybackRate = video.playbackRate = Number(event.target.value);
    });
    find(".sound")?.addEventListener("click", (event) => {
      video.muted = !video.muted;
      event.target.setAttribute("aria-pressed", video.muted);
      event.target.textContent = video.muted ? "Sound off" : "Sound on";
    });
    find(".which")?.addEventListener("change", (event) => {
      const paused = video.paused, shown = frame;
      video.pause();
      offset = null;
      article.classList.remove("nofilm");
      video.src = film.films[Number(event.target.value)];
      seek(shown);
      if (!paused) video.play().catch(() => {});
    });
    for (const thumb of thumbs) {
      thumb.addEventListener("click", () => {
        seek(Number(thumb.dataset.frame));
        article.scrollIntoView({ block: "nearest" });
      });
    }
    show(0);
  }

  const data = JSON.parse(document.getElementById("data").textContent);
  for (const article of document.querySelectorAll("article")) player(article, data.films[Number(article.dataset.number)]);
})();
