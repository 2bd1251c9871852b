// A page about something that is under way: look again, and load it anew only when it says something
// else. Whoever reads it, or moves through it by keyboard, is not torn away in between.

const seconds = Number(document.currentScript.dataset.seconds);
const wordsOf = (page) => page.getElementById("content")?.textContent;

setInterval(async () => {
  const answer = await fetch(location.href).catch(() => null); // away for now: later, then
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (wordsOf(page) !== wordsOf(document)) location.reload();
}, seconds * 1000);
