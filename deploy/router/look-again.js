// A page in place of a workspace: look again, and load it anew only when there is something else.
// Whoever reads it, or has it read aloud, is not torn away in between.
{
  const wait = 1000 * document.currentScript.dataset.seconds;
  const options = { headers: { Accept: "text/html" }, redirect: "manual", cache: "no-store" };
  const look = async () => {
    const said = await fetch(location.href, options)
      .then((answer) => (answer.status === 503 ? answer.text() : ""))
      .catch(() => document.title); // nobody is there just now
    if (said.includes(document.title)) setTimeout(look, wait);
    else location.reload();
  };
  setTimeout(look, wait);
}
