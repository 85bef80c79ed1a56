// A worker, because browsers slow the clocks of a page that is not seen down to once a minute.
setInterval(() => postMessage(null), 2_000);
