"""What can need an operator's attention, by code: what it means, what to do, when to worry.

The one source of these words: the admin shows them, and docs/attention.md is made from them by
`manage.py attention_reference docs/attention.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill


@dataclass(frozen=True)
class Code:
    """One cause. `do` is a list of steps; `urgent` ones stand first and are red."""

    title: str
    means: str
    do: tuple[str, ...]
    worry: str
    urgent: bool = False


CODES: Mapping[str, Code] = {
    "beat-silent": Code(
        "No queue is being worked off",
        "Beat puts a sign of life into each queue every 20 seconds, and the queue's worker writes "
        "down that it came through. None has for minutes: beat, Redis, or all workers are away, "
        "or this is a new installation that is still starting.",
        (
            "Look whether the processes beat and worker run, and what their logs say last.",
            "Look whether Redis answers: the front page says so beside the queues.",
            "Start what is missing. Nothing is lost meanwhile: the sweep finds all work again.",
        ),
        "At once. People who are in stay in, but nothing starts, wakes, stops or is mended.",
        urgent=True,
    ),
    "worker-silent": Code(
        "A queue is not being worked off",
        "The other queues are, so beat and Redis are well: the worker of this queue is away, or "
        "all of its threads hang. The queue `now` is what people wait for, `later` spares and "
        "tidying, `builds` images, `outside` webhooks. A build takes minutes, so `builds` is only "
        "called silent after half an hour.",
        (
            "Look at the worker's log, and whether the process runs.",
            "Restart it. Killing a worker loses nothing: another one takes its work up in seconds.",
        ),
        "At once for `now`; within the day for the others.",
        urgent=True,
    ),
    "engine-silent": Code(
        "The container engine does not answer",
        "A worker asked the engine about instances, or how its machine is, and has had no answer "
        "for minutes. We do nothing to instances that we hear nothing of: what runs goes on "
        "serving.",
        (
            "Look whether the engine runs (for Docker: `docker info`), and its disk is not full.",
            "Look whether the worker may reach it: DOCKER_HOST, and the rights on its socket.",
            "Once it answers, everything is looked at again by itself within seconds.",
        ),
        "At once. Whoever sleeps cannot be woken.",
        urgent=True,
    ),
    "host-disk-low": Code(
        "The disk of the containers is nearly full",
        "Less than a tenth of the file system that holds images and data volumes is free. When it "
        "is full, no workspace can write, and no image can be built.",
        (
            "See what is large: `docker system df`. Images that nothing uses go by themselves.",
            "Look at the orphan volumes below: they are never removed by us.",
            "Make the disk larger, or move the engine's directory to a larger one.",
        ),
        "Before it reaches a twentieth: databases that cannot write lose what is being written.",
        urgent=True,
    ),
    "host-unknown": Code(
        "Nothing is known of the engine's machine",
        "A worker writes down every minute what the machine has: cores, memory, disk. That is "
        "missing or old, so the front page cannot say how much is free.",
        (
            "Look at the worker of the queue `later`: it does this.",
            "Look whether the engine answers.",
        ),
        "Not for its own sake. It often comes with one of the codes above.",
    ),
    "instance-failing": Code(
        "A workspace or spare does not come up, or cannot be removed",
        "Something was tried three times or more and failed each time. It is tried again by "
        "itself, less and less often, up to every five minutes.",
        (
            "Read the error, and the log on the workspace's page.",
            "Out of memory: give it a larger plan. After a change of plugins: rebuild it, or have "
            "the owner go back to the set before. Engine refuses: its words say why.",
            "No such image, as on a new engine: press Build now on the page of the release, then "
            "roll it out from itself.",
            "Press Retry now on the workspace's page once the cause is gone. That forgets the "
            "failures so far. A spare has no such button: it is tried again within five minutes.",
        ),
        "When several have the same error: then it is not theirs but ours.",
        urgent=True,
    ),
    "instance-stuck": Code(
        "Nothing happens although something should",
        "What is wanted of the instance is not what is there, it does not count as failing, and "
        "nothing has happened for five minutes: its task was lost with the sweep not running, or a "
        "worker holds it and hangs, or it waits for an instance before it to be removed.",
        (
            "Press Retry now on the workspace's page: it is taken from a worker that hangs, and "
            "looked at. A spare has no such button: restart the worker of the queue `later`.",
            "If it comes back: look at the log of the worker, and at the engine.",
        ),
        "When Retry now does not help.",
        urgent=True,
    ),
    "workspace-ownerless": Code(
        "A workspace has no owner",
        "Nobody who can sign in is its owner: the account of the last one was deactivated. Its "
        "members go on using it, but nobody can invite, change plugins or delete it. Suspended "
        "ones are not listed.",
        (
            "Activate the account again if it was closed by mistake; that is all.",
            "Else find out whose it is, and press Give it an owner on its page: it takes the "
            "address of a member, or, where nobody belongs to it any more, of whoever is invited.",
            "If it is nobody's any more, suspend it: then it is not listed.",
        ),
        "When its members ask for something that only an owner can do.",
    ),
    "change-stuck": Code(
        "A change of plugins is under way for long",
        "It was asked for more than 15 minutes ago. Changes take turns: one may only be waiting. A "
        "worker that died is followed by another one within seconds.",
        (
            "Look how long the queue `builds` is, on the front page.",
            "Press Retry now: a worker is woken for it.",
            "Press Give up the change: what ran before runs on, and the owner can ask again.",
        ),
        "When it stays at one step: then look at the log of the worker of `builds`.",
    ),
    "rollout-stopped": Code(
        "A roll-out stopped before its end",
        "A workspace did not come up on the new release, so no further batch began. That one is "
        "back on its old image; those that moved before stay where they are.",
        (
            "Open the roll-out: it names the workspace and the error.",
            "Mend the cause, or leave that workspace out, and roll out again: who moved is done.",
            "Nothing more to move? A newer roll-out from the same release ends this notice; so do "
            "seven days.",
        ),
        "When the error concerns the release and not the one workspace.",
    ),
    "release-failed": Code(
        "The image of a release cannot be built",
        "A release that is offered could not be built the last time that was tried. While it is "
        "the default one and has no image, nobody can make a workspace.",
        (
            "Read the error on the release's page: package index, engine, or a conflict.",
            "Press Build now there once the cause is gone.",
        ),
        "At once if it is the default release.",
        urgent=True,
    ),
    "image-failed": Code(
        "An image could not be built",
        "A set of plugins did not build, or did not pass its trial, within the last seven days. "
        "Whoever asked for it runs the set that they had before.",
        (
            "Read the error on the image's page.",
            "If it is a plugin's fault, withdraw its approval. If it was the index or the engine, "
            "the owner can ask again, or press Rebuild on the workspace's page.",
        ),
        "When several sets fail in the same way.",
    ),
    "image-outdated": Code(
        "A workspace has an older image than its release",
        "After an upgrade of this software each release gets a new image, and new workspaces start "
        "from that. Those that were there keep theirs until their next change, and what is new in "
        "a workspace itself, mended holes included, does not reach them before.",
        (
            "Open the release and press Roll out, from the same release: a batch at a time, each "
            "gets the new image with the plugins that it has.",
            "One that does not come up is back on its old image by itself, and stops the roll-out.",
        ),
        "When the upgrade's notes say that it closes a hole in workspaces.",
    ),
    "approval-withdrawn": Code(
        "A withdrawn plugin is still in use",
        "You took an approval back, and workspaces run that version still: it leaves with the next "
        "change of their set.",
        (
            "See which they are: the link leads to the plugin's page, which names them.",
            "If it is dangerous, press Rebuild for these workspaces: it leaves at once.",
        ),
        "When you withdrew it for a hole in its security.",
    ),
    "approval-expiring": Code(
        "An approval expires soon, or has expired",
        "You said yes to a version for a time (APPROVAL_DAYS), and from 30 days before its end on "
        "you are asked whether it is still good. Once it has expired, nobody new can switch it on. "
        "Workspaces that have the plugin keep it, also in further changes.",
        (
            "Look whether anybody still looks after the plugin, and whether it is known to have "
            "holes.",
            "On the plugin's page, press Still good, approve a newer version, or withdraw it.",
        ),
        "When it has expired, and customers ask where the plugin is.",
    ),
    "approval-failed": Code(
        "An approval could not be locked",
        "The files that an approved version needs could not be found or do not fit together, so "
        "nobody can use it.",
        (
            "Read the error on the plugin's page.",
            "Approve another version, or this one again when the index answers.",
        ),
        "Not at all, unless somebody waits for the plugin.",
    ),
    "plugin-outdated": Code(
        "There is a newer version of a plugin",
        "The package index has a newer version than the one that is approved on the default "
        "release. The old version works as it did.",
        (
            "Read what changed, at the plugin's own page.",
            "Approve the newer version; workspaces get it with their next change, or by Rebuild.",
        ),
        "When the newer version closes a hole.",
    ),
    "plugin-unreadable": Code(
        "The index says nothing of a plugin",
        "The last reading of the package index failed for this plugin, so newer versions are not "
        "noticed. What is approved is not touched.",
        (
            "Read the error on the plugin's page.",
            "Press Read again there.",
        ),
        "Not at all, unless it concerns all plugins: then the index cannot be reached.",
    ),
    "webhook-failing": Code(
        "Nothing gets through to a webhook",
        "For more than an hour each message to this address failed. Messages are kept and tried "
        "again, and the webhook is switched off by itself after days.",
        (
            "Ours: see what the address answers, at its messages.",
            "A customer's: they see the same on their page. Tell them if it is a big one.",
        ),
        "When it is an operators' webhook that somebody relies on.",
    ),
    "webhook-off": Code(
        "An operators' webhook was switched off",
        "Nothing got through for so long that it was switched off, so whoever listens hears "
        "nothing any more.",
        ("Mend the receiver, then switch the webhook on again on its page.",),
        "When alarms depend on it.",
    ),
    "mail-failing": Code(
        "Mail does not go out",
        "A mail about a workspace has waited for more than an hour, although it was tried, or was "
        "given up within the last day. Or the mail server broke off before it said whether it took "
        "one: that counts as sent, lest somebody is told twice, and may be lost. An invitation "
        "that nobody gets, an owner who does not hear that their workspace is deleted: the people "
        "concerned cannot know.",
        (
            "Read the error. One address that the mail server refuses is that address's fault.",
            "Otherwise look at the mail server, and at EMAIL_URL and DEFAULT_FROM_EMAIL.",
            "What waits is sent by itself once the server takes it. What was given up, or may be "
            "lost, is not: tell these people, or have the invitation sent again.",
            "When all are uncertain, the server takes longer to answer than EMAIL_TIMEOUT, as one "
            "does that looks for viruses first: raise that.",
        ),
        "When it concerns all mail: then nobody can verify an address either.",
        urgent=True,
    ),
    "spares-missing": Code(
        "Fewer spares than the plan says",
        "Spares make a new workspace come up at once. For five minutes there have been too few, "
        "and nobody took one. New workspaces work all the same, in half a second more.",
        (
            "Look at the failing spares in the list of instances: their error says why.",
            "Look at the worker of the queue `later`, which makes them.",
        ),
        "Not for their own sake: what keeps spares from coming up keeps customers' from it too.",
    ),
    "orphan-container": Code(
        "A container belongs to no workspace",
        "The engine has a container of ours that no row knows, perhaps because the database came "
        "from a backup. It is removed by itself after a grace period (ORPHAN_GRACE_SECONDS).",
        ("Nothing, if the number is small and goes down.",),
        "When it comes after a restored backup: then stop the workers, and look what it holds.",
    ),
    "orphan-volume": Code(
        "A data volume belongs to no workspace",
        "The engine has a volume of ours that no row knows: of a workspace that was forgotten, or "
        "one that is newer than a backup of the database that was restored. It may be all that is "
        "left of a customer's data, so we never remove it.",
        (
            "Find out whose it was: the activity of a forgotten workspace names its volume. Where "
            "that was deleted before, its owners were told that the data goes: remove it.",
            "After a restored backup, search the workers' logs for the instance's id, which is in "
            "the volume's name: lines with it often name the workspace too.",
            "Give the data back: `docker volume inspect NAME` says in which directory it is; its "
            "databases can be uploaded into a new workspace. Or keep it, or remove it by hand: "
            "`docker volume rm NAME`.",
        ),
        "After a restored backup: these are the customers whose data the backup does not know.",
    ),
    "token-expiring": Code(
        "An operator's API token is about to expire",
        "A token of somebody who is an operator expires within seven days. What uses it is turned "
        "away then.",
        (
            "Ask its owner. They make a new one on their own page of tokens, and change it where "
            "it is used.",
        ),
        "When nobody knows what uses it.",
    ),
}

_INTRO = """\
# What needs attention

The page *Needs attention* of the operators' site lists what somebody should look at, each with one
of these codes. The front page counts them, and `GET /operator/fleet` of the [API](api.md) does too.
The same words stand in the admin, at `/admin/attention/<code>/`. Codes that are marked urgent come
first.

This page is made from `workspaces/attention_codes.py`: see `manage.py attention_reference`.
"""


def document() -> str:
    """Return docs/attention.md."""
    sections = []
    for name, code in CODES.items():
        steps = "\n".join(_wrapped(f"{n}. {step}", "   ") for n, step in enumerate(code.do, 1))
        urgent = " Urgent." if code.urgent else ""
        worry = f"When to worry: {code.worry[0].lower()}{code.worry[1:]}"
        sections.append(
            f"## {name}\n\n**{code.title}.**{urgent}\n\n{_wrapped(code.means)}\n\n"
            f"What to do:\n\n{steps}\n\n{_wrapped(worry)}\n"
        )
    return "\n".join([_INTRO, *sections])


def _wrapped(text: str, indent: str = "") -> str:
    return fill(text, 100, subsequent_indent=indent, break_on_hyphens=False)
