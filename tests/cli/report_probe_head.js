/* First script of the page under test: keeps what goes wrong from the start. */
"use strict";
const probeErrors = [];
addEventListener("error", event => probeErrors.push(event.message));
addEventListener("unhandledrejection", event => probeErrors.push(String(event.reason)));
console.error = (...words) => probeErrors.push(words.join(" "));
