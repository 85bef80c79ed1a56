import { defineConfig } from "vite";
import { compressed } from "./compressed.ts";

export default defineConfig({
  // Wherever a proxy may have put the gateway.
  base: "./",
  build: {
    target: "es2022",
    // Nothing is inlined: the page's Content-Security-Policy lets only files of its own host in.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  plugins: [compressed()],
  // `npm run dev` beside `make run`.
  server: { proxy: { "/socket": { target: "http://127.0.0.1:4000", ws: true } } },
});
