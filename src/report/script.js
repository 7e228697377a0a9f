'use strict';
// Draws the timeline of the data in this page. Texts of the data are shown by `textContent` and
// `fillText` only.
(() => {
  const ROW = 22, BAR = 15, GAP = 5, HEAD = 30, POINT = 5, NARROW = 900, COLOURS = 8, PAGE = 250;
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element('data').textContent);
  const { lanes, scripts, texts } = data;
  const marks = data.marks.map(([lane, row, what, end, begin, length, label, script, facts, waitedFor]) => {
    const from = data.from + begin;
    return {
      lane, row, what, end, from, until: length === null ? null : from + length,
      label: texts[label], script, facts, waitedFor, madeWait: [],
    };
  });
  delete data.marks;
  const axis = element('axis'), chart = element('chart');
  const tip = element('tip'), details = element('details');

  const NAMES = {
    phase: 'phase', tasks: 'tasks', signals: 'signals', commits: 'other commits',
    guards: 'guards', retries: 'retries', checkpoints: 'checkpoints, restores', errors: 'errors',
  };
  const SPANS = new Set(['phase', 'held', 'waited', 'guard', 'retry']);
  const BAD = new Set(['timed_out', 'broken', 'owner_died', 'failed', 'unrestored']);
  const ENDS = {
    held: {
      done: 'released', open: 'still held', unknown: 'end unknown',
      broken: 'broken', owner_died: 'its owner died',
    },
    waited: { done: 'granted', timed_out: 'timed out', broken: 'wait broken' },
    guard: {
      done: 'succeeded', failed: 'failed', restored: 'failed and put back',
      unrestored: 'not everything put back', unknown: 'end unknown',
    },
    retry: {
      done: 'succeeded', failed: 'failed', timed_out: 'out of time', unknown: 'end unknown',
    },
  };

  // ---- words ----

  const laneName = (lane) => lane.name || NAMES[lane.kind] || lane.kind;
  const scriptName = (number) => {
    const script = scripts[number];
    if (!script) return 'unknown';
    return script.pid === null ? script.program : `${script.program} (${script.pid})`;
  };
  const two = (number) => String(number).padStart(2, '0');
  const date = (time) => new Date(time).toISOString().slice(0, 10);
  const clock = (time, parts) => new Date(time).toISOString().slice(11, 11 + parts);
  const stamp = (time) => `${date(time)} ${clock(time, 12)}`;

  function duration(length) {
    if (length < 1000) return `${length} ms`;
    if (length < 60e3) return `${(length / 1000).toFixed(length < 10e3 ? 2 : 1)} s`;
    const seconds = Math.round(length / 1000);
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
    const minutes = Math.round(seconds / 60);
    if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
    return `${Math.round(minutes / 1440)} days`;
  }

  /** Names and texts of what is known about a mark. */
  const factsOf = (mark) => Array.from({ length: mark.facts.length / 2 },
    (_, n) => [texts[mark.facts[2 * n]], texts[mark.facts[2 * n + 1]]]);
  const isSpan = (mark) => SPANS.has(mark.what);
  const endOf = (mark) => (mark.until === null ? data.until : mark.until);
  const ending = (mark) => (ENDS[mark.what] || {})[mark.end] || '';

  function title(mark) {
    const lane = lanes[mark.lane].name;
    const who = scriptName(mark.script);
    switch (mark.what) {
      case 'phase': return `Phase ${mark.label}`;
      case 'task': return `Tasks: ${mark.label}`;
      case 'signal': return `Signals: ${mark.label}`;
      case 'commit': return `Commit: ${mark.label}`;
      case 'held': return `${who} held ${lane}: ${ending(mark)}`;
      case 'waited':
        return `${who} waited ${duration(endOf(mark) - mark.from)} for ${lane}: ${ending(mark)}`;
      case 'guard': return `Guard ${mark.label}: ${ending(mark)}`;
      case 'guard_step': return `Guard: ${mark.label}`;
      case 'retry': return `Retries of ${mark.label}: ${ending(mark)}`;
      case 'checkpoint': return `Checkpoint made: ${mark.label}`;
      case 'removed': return `Checkpoint removed: ${mark.label}`;
      case 'restore': return `Restore of ${mark.label}`;
      default: return `Error: ${mark.label}`;
    }
  }

  // ---- places ----

  /** The marks of each lane: they are sorted by lane and beginning. */
  const ranges = lanes.map(() => [0, 0]);
  marks.forEach((mark, number) => {
    const range = ranges[mark.lane];
    if (range[1] === 0) range[0] = number;
    range[1] = number + 1;
  });
  marks.forEach((mark, number) => {
    for (const other of mark.waitedFor) marks[other].madeWait.push(number);
  });

  const tops = [];
  let height = 0;
  for (const lane of lanes) {
    tops.push(height);
    height += lane.rows * ROW + 2 * GAP;
  }
  let width = 0, left = 0;
  const length = Math.max(data.until - data.from, 1000);
  const all = { from: data.from - length * 0.02, until: data.from + length * 1.02 };
  let view = { ...all };
  let hovered = -1, selected = -1, opened = -1, cursor = null;

  const x = (time) => left + ((time - view.from) / (view.until - view.from)) * (width - left);
  const timeAt = (px) => view.from + ((px - left) / (width - left)) * (view.until - view.from);
  const y = (mark) => tops[mark.lane] + GAP + mark.row * ROW + (ROW - BAR) / 2;

  // ---- colours ----

  let colours = {};
  // Few scripts have a colour each; of many, those of one name share one.
  const used = [...new Set(marks.map((mark) => mark.script))].filter((n) => scripts[n]).sort((a, b) => a - b);
  const isOneEach = used.length <= COLOURS || new Set(used.map((n) => scripts[n].program)).size === 1;
  const colourName = (number) => (isOneEach ? scriptName(number) : scripts[number].program);
  const programs = new Map();
  for (const number of used) {
    const name = colourName(number);
    if (!programs.has(name)) programs.set(name, programs.size % COLOURS);
  }
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ['paper', 'stripe', 'line', 'ink', 'faint', 'bad', 'good', 'focus', 'phase-0',
      'phase-1', ...Array.from({ length: COLOURS }, (_, n) => `script-${n}`)];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    hatches.clear();
  }
  const hatches = new Map();
  const colourOf = (number) => {
    if (!scripts[number]) return colours.faint;
    return colours[`script-${programs.get(colourName(number)) || 0}`];
  };
  /** Diagonal stripes of a colour. */
  function hatch(context, colour) {
    if (!hatches.has(colour)) {
      const tile = document.createElement('canvas');
      tile.width = tile.height = 6;
      const pen = tile.getContext('2d');
      pen.strokeStyle = colour;
      pen.lineWidth = 1.8;
      pen.beginPath();
      for (const shift of [-6, 0, 6]) {
        pen.moveTo(shift - 1, 7);
        pen.lineTo(shift + 7, -1);
      }
      pen.stroke();
      hatches.set(colour, context.createPattern(tile, 'repeat'));
    }
    return hatches.get(colour);
  }

  // ---- drawing ----

  const FONT = 'system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';

  function prepare(canvas, tall) {
    const scale = Math.min(window.devicePixelRatio || 1, 16000 / Math.max(tall, 1));
    canvas.style.height = `${tall}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(tall * scale);
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.textBaseline = 'middle';
    return context;
  }

  function fitted(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    let low = 0, high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (context.measureText(`${text.slice(0, middle)}…`).width <= room) low = middle;
      else high = middle - 1;
    }
    return low > 1 ? `${text.slice(0, low)}…` : '';
  }

  const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3,
    300e3, 600e3, 900e3, 1800e3, 3600e3, 7200e3, 10800e3, 21600e3, 43200e3, 86400e3, 172800e3,
    604800e3, 2592000e3, 7776000e3, 31536000e3];
  function ticks() {
    const wanted = ((view.until - view.from) * 96) / Math.max(width - left, 1);
    const step = STEPS.find((size) => size >= wanted) || STEPS[STEPS.length - 1];
    const list = [];
    for (let at = Math.ceil(view.from / step) * step; at <= view.until; at += step) list.push(at);
    const parts = step < 1000 ? 12 : step < 60e3 ? 8 : 5;
    return list.map((time) => ({ time, text: step >= 86400e3 ? date(time) : clock(time, parts) }));
  }

  function drawAxis(marksOfTime) {
    const context = prepare(axis, HEAD);
    context.fillStyle = colours.paper;
    context.fillRect(0, 0, width, HEAD);
    context.fillStyle = colours.line;
    context.fillRect(0, HEAD - 1, width, 1);
    context.font = `12px ${FONT}`;
    context.fillStyle = colours.faint;
    context.textAlign = 'left';
    context.fillText(`${date(Math.max(view.from, data.from))} UTC`, 10, HEAD / 2);
    context.textAlign = 'center';
    const open = cursor === null ? null : x(cursor);
    for (const { time, text } of marksOfTime) {
      const at = x(time);
      const isFree = at > left + 28 && at < width - 28 && (open === null || Math.abs(at - open) > 76);
      if (isFree) context.fillText(text, at, HEAD / 2);
    }
    if (open !== null && open >= left) {
      context.fillStyle = colours.ink;
      const isEdge = open > width - 46 ? 'right' : open < left + 46 ? 'left' : 'center';
      context.textAlign = isEdge;
      context.fillText(clock(cursor, 12), open, HEAD / 2);
    }
  }

  function drawLanes(context, marksOfTime) {
    context.fillStyle = colours.paper;
    context.fillRect(0, 0, width, height);
    lanes.forEach((lane, number) => {
      const tall = lane.rows * ROW + 2 * GAP;
      if (number % 2) {
        context.fillStyle = colours.stripe;
        context.fillRect(0, tops[number], width, tall);
      }
    });
    context.fillStyle = colours.line;
    for (const { time } of marksOfTime) {
      if (x(time) > left + 8) context.fillRect(Math.round(x(time)), 0, 1, height);
    }
  }

  function drawNames(context) {
    lanes.forEach((lane, number) => {
      const tall = lane.rows * ROW + 2 * GAP;
      context.fillStyle = number % 2 ? colours.stripe : colours.paper;
      context.fillRect(0, tops[number], left, tall);
      context.fillStyle = colours.ink;
      context.textAlign = 'left';
      const isLock = lane.kind === 'lock';
      context.font = `${isLock ? '600 ' : ''}13px ${FONT}`;
      const middle = tops[number] + GAP + ROW / 2;
      const name = fitted(context, laneName(lane), left - (isLock ? 50 : 20));
      context.fillText(name, 10, middle);
      if (isLock) {
        const after = 10 + context.measureText(name).width + 6;
        context.font = `12px ${FONT}`;
        context.fillStyle = colours.faint;
        context.fillText('lock', after, middle);
      }
    });
    context.fillStyle = colours.line;
    context.fillRect(left - 1, 0, 1, height);
  }

  function cross(context, at, middle, size, colour) {
    context.strokeStyle = colour;
    context.lineWidth = 2.2;
    context.beginPath();
    context.moveTo(at - size, middle - size);
    context.lineTo(at + size, middle + size);
    context.moveTo(at - size, middle + size);
    context.lineTo(at + size, middle - size);
    context.stroke();
  }

  function text(context, words, from, until, middle, colour) {
    const room = until - from - 10;
    if (room < 16) return;
    context.fillStyle = colour;
    context.textAlign = 'left';
    const fit = fitted(context, words, room);
    if (fit) context.fillText(fit, from + 5, middle);
  }

  function drawSpan(context, mark, number) {
    const from = Math.max(x(mark.from), left - 4), until = Math.min(x(endOf(mark)), width + 4);
    const wide = Math.max(until - from, 2), top = y(mark), tall = BAR;
    const middle = top + tall / 2;
    const isBad = BAD.has(mark.end);
    context.beginPath();
    context.roundRect(from, top, wide, tall, Math.min(3, wide / 2));
    if (mark.what === 'phase') {
      context.fillStyle = colours[`phase-${number % 2}`];
      context.fill();
      text(context, mark.label, from, until, middle, colours.ink);
      return;
    }
    if (mark.what === 'waited') {
      const blocker = marks[mark.waitedFor[0]];
      const colour = blocker ? colourOf(blocker.script) : colours.faint;
      context.fillStyle = colours.paper;
      context.fill();
      if (wide > 3) {
        context.fillStyle = hatch(context, colour);
        context.globalAlpha = 0.75;
        context.fill();
        context.globalAlpha = 1;
      }
      context.strokeStyle = isBad ? colours.bad : colourOf(mark.script);
      context.lineWidth = 1.2;
      context.stroke();
      if (wide > 60) {
        const words = fitted(context, mark.label, wide - 30);
        const room = context.measureText(words).width + 8;
        if (words) {
          context.fillStyle = colours.paper;
          context.globalAlpha = 0.88;
          context.fillRect(from + 12, top + 1, room, tall - 2);
          context.globalAlpha = 1;
          context.fillStyle = colours.ink;
          context.textAlign = 'left';
          context.fillText(words, from + 16, middle);
        }
      }
    } else {
      let fill = colourOf(mark.script);
      if (mark.what === 'guard' || mark.what === 'retry') {
        fill = isBad ? colours.bad : mark.end === 'unknown' ? colours.faint : colours.good;
        if (mark.end === 'restored') fill = colours.bad;
      }
      if (mark.end === 'unknown') {
        const shade = context.createLinearGradient(from, 0, from + wide, 0);
        shade.addColorStop(0, fill);
        shade.addColorStop(1, `${fill}00`); // the same colour, clear
        context.fillStyle = shade;
      } else {
        context.fillStyle = fill;
      }
      context.fill();
      text(context, mark.label, from, until - (isBad ? 10 : 0), middle, colours.paper);
    }
    if (isBad && until <= width) cross(context, from + wide, middle, 4, colours.bad);
    if (mark.end === 'open') {
      context.fillStyle = colourOf(mark.script);
      context.beginPath();
      context.moveTo(from + wide, top - 1);
      context.lineTo(from + wide + 8, middle);
      context.lineTo(from + wide, top + tall + 1);
      context.fill();
    }
  }

  function drawPoint(context, mark, room) {
    const at = x(mark.from), middle = y(mark) + BAR / 2;
    const colour = BAD.has(mark.end) ? colours.bad : colourOf(mark.script);
    context.fillStyle = context.strokeStyle = colour;
    context.lineWidth = 1.8;
    context.beginPath();
    switch (mark.what) {
      case 'failure':
        cross(context, at, middle, POINT - 1, colours.bad);
        break;
      case 'signal':
        context.moveTo(at - POINT + 1, middle - POINT - 1);
        context.lineTo(at + POINT + 1, middle);
        context.lineTo(at - POINT + 1, middle + POINT + 1);
        context.fill();
        break;
      case 'commit':
        context.rect(at - 3.5, middle - 3.5, 7, 7);
        context.fill();
        break;
      case 'checkpoint': case 'removed': case 'restore': case 'guard_step': {
        const size = mark.what === 'restore' ? POINT + 2 : POINT;
        context.moveTo(at, middle - size);
        context.lineTo(at + size, middle);
        context.lineTo(at, middle + size);
        context.lineTo(at - size, middle);
        context.closePath();
        if (mark.what === 'removed') context.stroke();
        else context.fill();
        break;
      }
      default:
        context.arc(at, middle, POINT - 0.5, 0, 7);
        context.fill();
    }
    let words = mark.label;
    if (mark.what === 'restore') words = `restored: ${words}`;
    if (mark.what === 'removed') words = `removed: ${words}`;
    context.font = `12px ${FONT}`;
    if (room > 40) text(context, words, at + 4, at + room, middle, colours.ink);
  }

  /** An arrow from a waiting script to the one that it waited for. */
  function drawArrow(context, mark, other, isStrong) {
    if (other.lane !== mark.lane || other.row === mark.row) return;
    const from = x(mark.from), until = x(endOf(mark));
    if (!isStrong && until - from < 8) return;
    if (until < left || from > width) return;
    const at = Math.min(Math.max(from + 6, left + 6), until);
    const up = other.row < mark.row;
    const start = y(mark) + BAR / 2, end = y(other) + (up ? BAR - 1 : 1), back = up ? 7 : -7;
    context.strokeStyle = context.fillStyle = isStrong ? colours.focus : colours.ink;
    context.lineWidth = isStrong ? 2.4 : 1.6;
    context.beginPath();
    context.moveTo(at, start);
    context.lineTo(at, end + back);
    context.stroke();
    context.beginPath();
    context.arc(at, start, 2.6, 0, 7);
    context.fill();
    context.beginPath();
    context.moveTo(at, end);
    context.lineTo(at - 4, end + back);
    context.lineTo(at + 4, end + back);
    context.fill();
  }

  function ring(context, number, colour) {
    const mark = marks[number];
    if (!mark) return;
    const from = isSpan(mark) ? x(mark.from) : x(mark.from) - POINT - 2;
    const until = isSpan(mark) ? x(endOf(mark)) : x(mark.from) + POINT + 2;
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.beginPath();
    context.roundRect(from - 2, y(mark) - 2, Math.max(until - from, 2) + 4, BAR + 4, 4);
    context.stroke();
  }

  function drawMarks(context) {
    ranges.forEach(([first, last]) => {
      const drawn = [];
      for (let number = first; number < last; number += 1) {
        const mark = marks[number];
        if (mark.from > view.until) break;
        if (!isSpan(mark) || endOf(mark) < view.from) continue;
        // Where marks are closer than pixels, one stands for all.
        const right = Math.round(x(endOf(mark)));
        if (drawn[mark.row] >= right && !BAD.has(mark.end)) continue;
        drawn[mark.row] = right;
        context.font = `12px ${FONT}`;
        drawSpan(context, mark, number);
      }
      let before = { at: -10, what: '' };
      let next = first;
      for (let number = first; number < last; number += 1) {
        const mark = marks[number];
        if (mark.from > view.until) break;
        if (isSpan(mark) || mark.from < view.from) continue;
        const at = x(mark.from);
        if (at - before.at < 1 && mark.what === before.what) continue;
        before = { at, what: mark.what };
        if (next <= number) next = number + 1;
        while (next < last && (isSpan(marks[next]) || x(marks[next].from) - at < 1)) next += 1;
        const room = next < last ? x(marks[next].from) - at - POINT - 4 : Math.min(width - at, 260);
        drawPoint(context, mark, room);
      }
      for (let number = first; number < last; number += 1) {
        const mark = marks[number];
        if (mark.from > view.until) break;
        for (const other of mark.waitedFor) drawArrow(context, mark, marks[other], false);
      }
    });
  }

  function draw() {
    const marksOfTime = ticks();
    drawAxis(marksOfTime);
    const context = prepare(chart, Math.max(height, 1));
    drawLanes(context, marksOfTime);
    drawMarks(context);
    for (const number of new Set([hovered, opened])) {
      const mark = marks[number];
      if (!mark) continue;
      for (const other of mark.waitedFor) {
        drawArrow(context, mark, marks[other], true);
        ring(context, other, colours.focus);
      }
      for (const other of mark.madeWait) drawArrow(context, marks[other], mark, true);
    }
    ring(context, hovered, colours.ink);
    ring(context, selected, colours.focus);
    if (cursor !== null) {
      context.fillStyle = colours.faint;
      context.globalAlpha = 0.5;
      context.fillRect(Math.round(x(cursor)), 0, 1, height);
      context.globalAlpha = 1;
    }
    drawNames(context);
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  // ---- finding marks ----

  /** The mark at a place, and the number of marks there. */
  function at(px, py) {
    const lane = tops.findIndex((top, n) => py >= top && py < top + lanes[n].rows * ROW + 2 * GAP);
    if (lane < 0 || px < left) return { number: -1, count: 0 };
    const row = Math.floor((py - tops[lane] - GAP) / ROW);
    let number = -1, count = 0, best = Infinity;
    const near = ((view.until - view.from) / Math.max(width - left, 1)) * (POINT + 1);
    const time = timeAt(px);
    for (let n = ranges[lane][0]; n < ranges[lane][1]; n += 1) {
      const mark = marks[n];
      if (mark.from > time + near) break;
      if (mark.row !== row || endOf(mark) < time - near) continue;
      count += 1;
      const isInside = mark.from <= time && endOf(mark) >= time;
      const distance = isInside ? 0 : Math.min(Math.abs(mark.from - time), Math.abs(endOf(mark) - time));
      const weight = isSpan(mark) ? distance + (isInside ? near / 2 : near) : distance - near;
      if (weight <= best) {
        best = weight;
        number = n;
      }
    }
    return { number, count };
  }

  function show(number) {
    const mark = marks[number];
    const from = x(mark.from), until = x(endOf(mark));
    const span = view.until - view.from;
    if (until < left + 10 || from > width - 10) {
      view = { from: mark.from - span / 2, until: mark.from + span / 2 };
    }
    const box = chart.getBoundingClientRect();
    const top = box.top + y(mark);
    if (top < HEAD + 8 || top > window.innerHeight - 60) {
      window.scrollBy({ top: top - window.innerHeight / 2 });
    }
  }

  // ---- tip and details ----

  function add(parent, name, words, kind) {
    const child = document.createElement(name);
    child.textContent = words;
    if (kind) child.className = kind;
    parent.append(child);
    return child;
  }

  function when(mark) {
    if (!isSpan(mark)) return `${stamp(mark.from)} UTC`;
    const begin = stamp(mark.from);
    if (mark.until === null) return `from ${begin} UTC`;
    const end = date(mark.from) === date(mark.until) ? clock(mark.until, 12) : stamp(mark.until);
    return `${begin} – ${end} UTC, ${duration(mark.until - mark.from)}`;
  }

  function fillTip(number, count) {
    const mark = marks[number];
    tip.replaceChildren();
    add(tip, 'b', title(mark), BAD.has(mark.end) ? 'bad' : '');
    add(tip, 'span', when(mark));
    if (mark.script !== null && mark.what !== 'held' && mark.what !== 'waited') {
      add(tip, 'span', `by ${scriptName(mark.script)}`);
    }
    const told = ['Reason', 'Message', 'For', 'Outcome'];
    for (const [name, words] of factsOf(mark).filter(([name]) => told.includes(name)).slice(0, 3)) {
      add(tip, 'span', `${name === 'For' ? 'Waited for' : name}: ${words}`);
    }
    if (mark.madeWait.length) add(tip, 'span', `${mark.madeWait.length} waited for this`);
    if (count > 1) add(tip, 'span', `${count - 1} more here: zoom in`);
    tip.hidden = false;
    const room = tip.parentElement.clientWidth;
    const wide = tip.offsetWidth;
    const at = Math.min(Math.max(x(mark.from), left), width) + 12;
    const where = cursor === null ? at : x(cursor) + 14;
    tip.style.left = `${Math.max(4, Math.min(where, room - wide - 6))}px`;
    const below = HEAD + y(mark) + BAR + 10;
    const isLow = chart.getBoundingClientRect().top + below - HEAD + tip.offsetHeight > window.innerHeight;
    tip.style.top = `${isLow ? Math.max(0, HEAD + y(mark) - tip.offsetHeight - 8) : below}px`;
  }

  function hideTip() {
    hovered = -1;
    tip.hidden = true;
  }

  function link(parent, words, number) {
    const button = add(parent, 'button', words, 'link');
    button.type = 'button';
    button.addEventListener('click', () => {
      select(number);
      open(number);
    });
  }

  function open(number) {
    const mark = marks[number];
    if (!mark) return;
    opened = number;
    details.replaceChildren();
    const button = add(details, 'button', '✕', 'close');
    button.type = 'button';
    button.setAttribute('aria-label', 'Close');
    button.addEventListener('click', close);
    add(details, 'h2', title(mark), BAD.has(mark.end) ? 'bad' : '');
    const list = add(details, 'dl', '');
    const fact = (name, words) => {
      add(list, 'dt', name);
      return add(list, 'dd', words);
    };
    fact('When', when(mark));
    const script = scripts[mark.script];
    if (script) {
      fact('Script', `${script.program}${script.pid === null ? '' : `, pid ${script.pid}`}`);
      if (script.user) fact('User', script.user);
    }
    let before = '';
    for (const [name, words] of factsOf(mark)) {
      fact(name === before ? '' : name, words);
      before = name;
    }
    for (const other of mark.waitedFor) link(fact('Blocked by', ''), title(marks[other]), other);
    for (const other of mark.madeWait.slice(0, 20)) {
      link(fact('Made wait', ''), title(marks[other]), other);
    }
    details.hidden = false;
    hideTip();
    redraw();
  }

  function close() {
    if (details.contains(document.activeElement)) chart.focus();
    opened = -1;
    details.hidden = true;
    redraw();
  }

  function select(number) {
    if (!marks[number]) return;
    selected = number;
    cursor = null;
    show(number);
    fillTip(number, 1);
    const mark = marks[number];
    element('spoken').textContent = `${laneName(lanes[mark.lane])}. ${title(mark)}. ${when(mark)}`;
    redraw();
  }

  // ---- mouse ----

  let drag = null;
  const place = (event) => {
    const box = chart.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  chart.addEventListener('pointermove', (event) => {
    const [px, py] = place(event);
    if (drag && Math.abs(px - drag.px) > 3) {
      drag.isMoved = true;
      const shift = ((drag.px - px) / Math.max(width - left, 1)) * (drag.until - drag.from);
      view = { from: drag.from + shift, until: drag.until + shift };
    }
    cursor = px >= left ? timeAt(px) : null;
    const found = at(px, py);
    hovered = found.number;
    if (found.number >= 0 && !(drag && drag.isMoved)) fillTip(found.number, found.count);
    else tip.hidden = true;
    redraw();
  });
  chart.addEventListener('pointerleave', () => {
    cursor = null;
    hideTip();
    redraw();
  });
  chart.addEventListener('pointerdown', (event) => {
    if (event.button === 0) drag = { px: place(event)[0], ...view, isMoved: false };
  });
  window.addEventListener('pointerup', (event) => {
    const isClick = drag && !drag.isMoved && event.target === chart;
    drag = null;
    if (!isClick) return;
    const { number } = at(...place(event));
    if (number >= 0) {
      selected = number;
      open(number);
    } else {
      close();
    }
  });
  chart.addEventListener('wheel', (event) => {
    const isAlong = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (!event.ctrlKey && !isAlong) return;
    event.preventDefault();
    if (event.ctrlKey) {
      zoom(Math.exp(event.deltaY * 0.004), timeAt(place(event)[0]));
    } else {
      const shift = ((event.deltaX || event.deltaY) / Math.max(width - left, 1)) * (view.until - view.from);
      view = { from: view.from + shift, until: view.until + shift };
      redraw();
    }
  }, { passive: false });

  function zoom(factor, around) {
    const span = Math.min(Math.max((view.until - view.from) * factor, 20), (all.until - all.from) * 2);
    const share = (around - view.from) / (view.until - view.from);
    view = { from: around - span * share, until: around + span * (1 - share) };
    redraw();
  }
  const middle = () => (marks[selected] && x(marks[selected].from) >= left && x(marks[selected].from) <= width
    ? marks[selected].from : (view.from + view.until) / 2);
  const fit = () => {
    view = { ...all };
    redraw();
  };
  element('zoom-in').addEventListener('click', () => zoom(0.5, middle()));
  element('zoom-out').addEventListener('click', () => zoom(2, middle()));
  element('fit').addEventListener('click', fit);

  // ---- keyboard ----

  /** The mark of a lane that begins nearest to a time. */
  function nearest(lane, time) {
    const [first, last] = ranges[lane];
    let best = first;
    for (let number = first; number < last; number += 1) {
      if (Math.abs(marks[number].from - time) <= Math.abs(marks[best].from - time)) best = number;
    }
    return best;
  }
  function move(key) {
    const mark = marks[selected];
    if (!mark) return marks.length ? ranges[0][0] : -1;
    const [first, last] = ranges[mark.lane];
    switch (key) {
      case 'ArrowRight': return Math.min(selected + 1, last - 1);
      case 'ArrowLeft': return Math.max(selected - 1, first);
      case 'Home': return first;
      case 'End': return last - 1;
      case 'ArrowDown': return mark.lane + 1 < lanes.length ? nearest(mark.lane + 1, mark.from) : selected;
      default: return mark.lane > 0 ? nearest(mark.lane - 1, mark.from) : selected;
    }
  }
  const MOVES = new Set(['ArrowRight', 'ArrowLeft', 'ArrowDown', 'ArrowUp', 'Home', 'End']);
  chart.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (MOVES.has(event.key)) {
      select(move(event.key));
      if (opened >= 0) open(selected);
    } else if (event.key === 'Enter' || event.key === ' ') open(selected);
    else if (event.key === '+' || event.key === '=') zoom(0.5, middle());
    else if (event.key === '-') zoom(2, middle());
    else if (event.key === '0') fit();
    else return;
    event.preventDefault();
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    close();
    hideTip();
    redraw();
  });

  // ---- the page around it ----

  function fillHead() {
    element('root').textContent = data.root;
    const isOneDay = date(data.from) === date(data.until);
    const end = isOneDay ? clock(data.until, 8) : stamp(data.until).slice(0, 19);
    element('range').textContent = marks.length
      ? `${stamp(data.from).slice(0, 19)} – ${end} UTC` : '';
    const summary = element('summary');
    const item = (count, one, many, kind) => {
      if (!count) return;
      const entry = add(summary, 'li', '', kind || '');
      add(entry, 'b', count.toLocaleString('en'));
      entry.append(` ${count === 1 ? one : many}`);
    };
    const waits = marks.filter((mark) => mark.what === 'waited');
    item(data.events, 'event', 'events');
    item(used.length, 'script', 'scripts');
    item(waits.length, 'wait', 'waits');
    const lost = waits.filter((mark) => mark.end === 'timed_out').length;
    item(lost, 'wait timed out', 'waits timed out', 'bad');
    item(marks.filter((mark) => mark.what === 'failure').length, 'error', 'errors', 'bad');
    const slow = (mark) => endOf(mark) - mark.from;
    const longest = waits.reduce((best, mark) => (best && slow(best) >= slow(mark) ? best : mark), null);
    if (longest) {
      const entry = add(summary, 'li', 'Longest: ');
      const blocker = marks[longest.waitedFor[0]];
      const words = `${title(longest)}${blocker ? `, blocked by ${scriptName(blocker.script)}` : ''}`;
      link(entry, words, marks.indexOf(longest));
    }
    for (const note of data.notes) add(element('notes'), 'li', note);
    for (const [program, colour] of [...programs].slice(0, 12)) {
      const entry = add(element('legend'), 'li', '');
      add(entry, 'i', '').style.background = `var(--script-${colour})`;
      entry.append(program);
    }
    if (programs.size > 12) add(element('legend'), 'li', `and ${programs.size - 12} more`);
  }

  let listed = null;
  function fillList() {
    if (!listed) {
      listed = marks.map((_, number) => number).sort((a, b) => marks[b].from - marks[a].from);
    }
    const rows = element('rows');
    const done = rows.childElementCount;
    for (const number of listed.slice(done, done + PAGE)) {
      const mark = marks[number];
      const row = add(rows, 'tr', '');
      add(row, 'td', stamp(mark.from));
      add(row, 'td', laneName(lanes[mark.lane]));
      link(add(row, 'td', ''), title(mark), number);
      add(row, 'td', scriptName(mark.script));
      add(row, 'td', isSpan(mark) && mark.until !== null ? duration(mark.until - mark.from) : '');
    }
    element('older').hidden = rows.childElementCount >= listed.length;
  }
  element('list').addEventListener('toggle', () => {
    if (!element('rows').childElementCount) fillList();
  });
  element('older').addEventListener('click', fillList);

  function resize() {
    width = element('timeline').clientWidth;
    left = window.innerWidth < NARROW ? 126 : 176;
    draw();
  }
  readColours();
  fillHead();
  chart.setAttribute('aria-label', `Timeline of ${data.events} events in ${lanes.length} lanes`);
  element('empty').hidden = marks.length > 0;
  resize();
  new ResizeObserver(() => {
    if (element('timeline').clientWidth !== width) resize();
  }).observe(element('timeline'));
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    readColours();
    draw();
  });
  // The time from the request of the page to the end of the first drawing, for benchmarks.
  document.documentElement.dataset.marks = String(marks.length);
  document.documentElement.dataset.drawn = performance.now().toFixed(0);
})();
