"""Forms of what operators do with the catalogue and releases."""

import re
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminRadioSelect, AdminTextareaWidget, AdminTextInputWidget

from workspaces import catalogue, outbox, outside, webhooks
from workspaces.models import Approval, Plugin, Release, Workspace


def live_workspaces(text: str) -> list[Workspace]:
    """Return the workspaces with these slugs, in any separation. Raises ValidationError."""
    slugs = [slug for slug in re.split(r"[\s,;]+", text) if slug]
    rows = Workspace.objects.filter(slug__in=slugs, deleted_at=None)
    found = {row.slug: row for row in rows.select_related("instance", "plan", "release")}
    if unknown := [slug for slug in slugs if slug not in found]:
        raise forms.ValidationError(f"There is no workspace {', '.join(unknown)}.")
    return list(found.values())


class SlugsField(forms.CharField):
    """Workspaces by their slugs, on lines or with commas."""

    widget = AdminTextareaWidget(attrs={"rows": 4})

    def clean(self, value: Any) -> Any:
        """Return the workspaces."""
        return live_workspaces(super().clean(value))


class AddPluginForm(forms.Form):
    """The one thing that is asked: everything else is read from the index."""

    name = forms.CharField(
        label="Package name",
        max_length=100,
        widget=AdminTextInputWidget(attrs={"autocapitalize": "none", "spellcheck": "false"}),
        help_text="As on the package index, such as datasette-vega.",
    )


class DescriptionForm(forms.ModelForm):  # type: ignore[type-arg]
    """What customers read of a plugin: all that can be edited."""

    class Meta:
        model = Plugin
        fields = ("description",)
        widgets = {"description": AdminTextareaWidget(attrs={"rows": 3})}
        help_texts = {"description": "What customers read; empty for the package's own summary."}


class ApproveForm(forms.Form):
    """An exact version on one release, and the terms."""

    release = forms.ModelChoiceField(
        Release.objects.order_by("-is_default", "pk"), empty_label=None
    )
    version = forms.CharField(
        max_length=60,
        widget=AdminTextInputWidget,
        help_text="Exactly this version and these files, whatever the index gets later.",
    )
    reach = forms.ChoiceField(choices=Approval.Reach.choices)
    required = forms.BooleanField(
        label="Part of every image",
        required=False,
        help_text="Every workspace of this release gets it with its next image.",
    )
    needs_internet = forms.BooleanField(
        label="Needs the internet",
        required=False,
        help_text="The container of a workspace that switches it on joins the guarded bridge.",
    )
    note = forms.CharField(
        max_length=600,
        required=False,
        widget=AdminTextareaWidget(attrs={"rows": 3}),
        help_text="Why, for other operators.",
    )


class NeedForm(forms.Form):
    """A value that each workspace is asked for before it can switch the plugin on."""

    name = forms.CharField(
        max_length=64,
        required=False,
        widget=AdminTextInputWidget(attrs={"placeholder": "OPENCAGE_KEY"}),
    )
    help = forms.CharField(max_length=200, required=False, widget=AdminTextInputWidget)
    option = forms.CharField(max_length=100, required=False, widget=AdminTextInputWidget)

    def clean(self) -> dict[str, Any]:
        """Name the trouble where it is; a row without a name is no need."""
        said = {field: self.cleaned_data.get(field, "").strip() for field in self.fields}
        words = catalogue.need_problem(said["name"], said["option"])
        if words and any(said.values()):
            self.add_error("name", words)
        return said


NeedFormSet = forms.formset_factory(NeedForm, extra=2, max_num=12)


class WithdrawForm(forms.Form):
    """What becomes of the workspaces that use it."""

    KEEP, REBUILD = "keep", "rebuild"
    then = forms.ChoiceField(
        label="The workspaces that use it",
        choices=[
            (KEEP, "keep running it until their set is changed"),
            (REBUILD, "are rebuilt without it now"),
        ],
        widget=AdminRadioSelect(attrs={"class": "radiolist"}),
        initial=KEEP,
    )


class GrantForm(forms.Form):
    """A workspace that may use a plugin."""

    workspace = forms.CharField(
        max_length=40,
        widget=AdminTextInputWidget,
        help_text="Its slug: the first part of its address.",
    )

    def clean_workspace(self) -> Workspace:
        """Return the workspace."""
        found = live_workspaces(self.cleaned_data["workspace"])
        if len(found) != 1:
            raise forms.ValidationError("Name one workspace.")
        return found[0]


class TryForm(forms.Form):
    """The workspaces that go first."""

    workspaces = SlugsField(help_text="Slugs, on lines or with commas between them.")


class RolloutForm(forms.Form):
    """Whose workspaces move, how many at a time, and which do not."""

    source = forms.ModelChoiceField(
        Release.objects.order_by("-is_default", "pk"), label="All workspaces of", empty_label=None
    )
    batch_size = forms.IntegerField(
        min_value=1,
        max_value=100,
        initial=5,
        help_text="So many at a time; the next ones begin when all of these are done.",
    )
    leave_out = SlugsField(required=False, help_text="Slugs of workspaces that stay.")


class AddWebhookForm(forms.Form):
    """Where an operator's webhook goes, and what it hears of."""

    url = forms.CharField(
        label="Address",
        max_length=outside.MAX_LENGTH,
        widget=AdminTextInputWidget(attrs={"autocapitalize": "none", "spellcheck": "false"}),
        help_text=(
            "https on the public internet, or on a network that WEBHOOK_ALLOWED_NETWORKS names."
        ),
    )
    name = forms.CharField(
        max_length=webhooks.MAX_NAME,
        required=False,
        widget=AdminTextInputWidget,
        help_text="What it is for, for other operators.",
    )
    events = forms.MultipleChoiceField(
        choices=[(type, f"{type}: {words}") for type, words in outbox.TYPES.items()],
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"class": "radiolist"}),
        help_text="None ticked: all, also those that come with later versions.",
    )
