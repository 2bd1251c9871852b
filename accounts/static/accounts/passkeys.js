// Says on the page what allauth's scripts only say to the console.
document.addEventListener("allauth.error", (event) => {
  const words = document.getElementById("passkey-error");
  if (words) {
    event.preventDefault();
    words.hidden = false;
    words.scrollIntoView({ block: "nearest" });
  }
});
