/* The ranking board as plain data: which answer is in which lane, every move, and undo.

   A state is a list of lanes, each a list of candidate uids: lanes[0] holds what is still to be
   placed, lanes[1…K] the ranks (1 is the best; who shares a lane is tied), lanes[K+1] what is not
   acceptable. Moves never change a state: they return the next one. */
(() => {
  "use strict";

  const copy = (lanes) => lanes.map((lane) => [...lane]);

  class Board {
    /* `outside`: whether an answer may be called not acceptable. */
    constructor(uids, { outside = true } = {}) {
      this.uids = uids;
      this.outside = outside;
      this.size = uids.length;
      this.lanes = [[...uids], ...Array.from({ length: this.size + 1 }, () => [])];
      this.past = [];
    }

    get unacceptableLane() {
      return this.size + 1;
    }

    get lastLane() {
      return this.outside ? this.unacceptableLane : this.size;
    }

    laneOf(uid) {
      return this.lanes.findIndex((lane) => lane.includes(uid));
    }

    unplaced() {
      return this.lanes[0];
    }

    isComplete() {
      return this.lanes[0].length === 0;
    }

    /* Ranked lanes that hold something, best first, then the not acceptable as the last tier. */
    tiers() {
      return this.lanes.slice(1).filter((lane) => lane.length);
    }

    /* Every pair [better, worse] that the lanes say so far. */
    pairs() {
      const tiers = this.tiers();
      return tiers.flatMap((tier, at) => tier.flatMap((uid) => tiers.slice(at + 1).flat().map((worse) => [uid, worse])));
    }

    unacceptable() {
      return this.lanes[this.unacceptableLane];
    }

    tiedWith(uid) {
      const lane = this.laneOf(uid);
      return lane === 0 || lane === this.unacceptableLane ? [] : this.lanes[lane].filter((one) => one !== uid);
    }

    /* All ranked lanes in order, as pairs [lane number, uids], without the empty ones. */
    ranked() {
      return this.lanes.map((uids, lane) => [lane, uids]).filter(([lane, uids]) => lane > 0 && lane <= this.size && uids.length);
    }

    #next(lanes) {
      if (JSON.stringify(lanes) === JSON.stringify(this.lanes)) return false;
      this.past.push(this.lanes);
      if (this.past.length > 100) this.past.shift();
      this.lanes = lanes;
      return true;
    }

    undo() {
      const before = this.past.pop();
      if (!before) return null;
      const moved = this.uids.find((uid) => before.findIndex((lane) => lane.includes(uid)) !== this.laneOf(uid));
      this.lanes = before;
      return moved ?? this.uids[0];
    }

    /* Put an answer in a lane, last, or at an index. Each move returns whether anything changed. */
    place(uid, lane, index) {
      if (lane < 0 || lane > this.lastLane) return false;
      if (index === undefined && this.laneOf(uid) === lane) return false;
      const lanes = copy(this.lanes).map((one) => one.filter((other) => other !== uid));
      lanes[lane].splice(index ?? lanes[lane].length, 0, uid);
      return this.#next(lanes);
    }

    /* One lane to the left (better, -1) or to the right (+1). */
    shift(uid, by) {
      return this.place(uid, this.laneOf(uid) + by);
    }

    /* Into the lane of the answer ranked just above; for one not placed yet, into the lowest rank. */
    tie(uid) {
      const lane = this.laneOf(uid);
      const above = this.ranked().filter(([number]) => lane === 0 || lane === this.unacceptableLane || number < lane);
      return above.length ? this.place(uid, above.at(-1)[0]) : false;
    }

    /* One rank up (-1) or down (+1): out of a tie into a lane of its own, otherwise past its neighbour. */
    reorder(uid, by) {
      const lane = this.laneOf(uid);
      if (lane === 0 || lane === this.unacceptableLane) return false;
      const groups = this.ranked().map(([, uids]) => uids);
      const at = groups.findIndex((group) => group.includes(uid));
      if (groups[at].length > 1) {
        const rest = groups[at].filter((other) => other !== uid);
        groups.splice(at, 1, ...(by < 0 ? [[uid], rest] : [rest, [uid]]));
      } else {
        const to = at + by;
        if (to < 0 || to >= groups.length) return false;
        [groups[at], groups[to]] = [groups[to], groups[at]];
      }
      const lanes = copy(this.lanes);
      for (let number = 1; number <= this.size; number += 1) lanes[number] = groups[number - 1] ?? [];
      return this.#next(lanes);
    }

    /* Not acceptable, and back to where it was to be placed. */
    unacceptableToggle(uid) {
      return this.place(uid, this.laneOf(uid) === this.unacceptableLane ? 0 : this.unacceptableLane);
    }

    /* The judgement so far, and the lanes, which also say where there are gaps. */
    toDraft() {
      return { tiers: this.tiers(), unacceptable: [...this.unacceptable()], lanes: copy(this.lanes) };
    }

    /* The lanes of a judgement that came without them: tiers from the first lane on. */
    #lanesOf({ tiers, unacceptable }) {
      const outside = new Set(Array.isArray(unacceptable) ? unacceptable : []);
      const ranked = (Array.isArray(tiers) ? tiers : []).map((tier) => (Array.isArray(tier) ? tier.filter((uid) => !outside.has(uid)) : []));
      const lanes = ranked.filter((tier) => tier.length).slice(0, this.size);
      while (lanes.length < this.size) lanes.push([]);
      return [[], ...lanes, [...outside]];
    }

    /* Take a draft up, whatever it holds: unknown answers are dropped, missing ones are unplaced. */
    fromDraft(draft) {
      const known = new Set(this.uids);
      const lanes = Array.from({ length: this.size + 2 }, () => []);
      const given = Array.isArray(draft?.lanes) ? draft.lanes : draft ? this.#lanesOf(draft) : [];
      for (const [number, uids] of given.entries()) {
        if (number >= lanes.length || !Array.isArray(uids)) continue;
        for (const uid of uids) if (known.delete(uid)) lanes[number].push(uid);
      }
      lanes[0].push(...this.uids.filter((uid) => known.has(uid)));
      this.lanes = lanes;
      this.past = [];
    }
  }

  window.rondo = { ...window.rondo, Board };
})();
