// What views show: objects that change, and tell it.

import { useEffect, useReducer } from "preact/hooks";

export class Model {
  readonly #listeners = new Set<() => void>();

  /** Calls back after each change, until what it returns is called. */
  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** Renders the component again after each change of the models. */
export function useModels(...models: Model[]): void {
  const [, render] = useReducer((n: number, _: undefined) => n + 1, 0);
  useEffect(() => {
    const ends = models.map((model) => model.watch(() => render(undefined)));
    // What changed between the first rendering and now.
    render(undefined);
    return () => ends.forEach((end) => end());
  }, models);
}
