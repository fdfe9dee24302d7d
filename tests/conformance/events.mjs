// The events of one session, kept so that a stream can be taken up where it broke off. An event's id
// names its stream; only that stream is told again.
export class Events {
  #kept = [];

  async storeEvent(stream, message) {
    const id = `${stream}/${this.#kept.length}`;
    this.#kept.push({ id, stream, message });
    return id;
  }

  async getStreamIdForEventId(id) {
    return this.#kept.find((event) => event.id === id)?.stream;
  }

  async replayEventsAfter(last, { send }) {
    const at = this.#kept.findIndex((event) => event.id === last);
    if (at < 0) throw new Error(`there is no event ${last}`);
    const { stream } = this.#kept[at];
    for (const { id, stream: of, message } of this.#kept.slice(at + 1)) {
      // What has no method and no id was the stream's opening, which is not said twice.
      const said = "method" in message || "id" in message;
      if (of === stream && said) await send(id, message);
    }
    return stream;
  }
}
