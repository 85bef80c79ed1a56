import { defineConfig } from "vite";
import { compressed } from "./compressed.ts";

export default defineConfig({
  // Wherever a proxy may have put the gateway.
  base: "./",
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  plugins: [compressed()],
});
