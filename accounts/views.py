"""Pages of one's own account, beside those that allauth brings."""

from typing import Any

from allauth.account.internal.flows.login import perform_password_login
from allauth.account.models import EmailAddress, Login
from allauth.account.stages import EmailVerificationStage, LoginStageController
from allauth.account.views import ConfirmEmailView as AllauthConfirmEmailView
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from accounts import audit
from accounts.forms import ConfirmForm, ProfileForm
from accounts.models import Profile, User


@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """Everything about one's account at a glance, with links to change it."""
    factors = Authenticator.objects.filter(user_id=request.user.pk).values_list("type", flat=True)
    context = {
        "addresses": EmailAddress.objects.filter(user_id=request.user.pk).order_by(
            "-primary", "email"
        ),
        "google_accounts": SocialAccount.objects.filter(user_id=request.user.pk).order_by("pk"),
        "has_totp": Authenticator.Type.TOTP in factors,
        "passkeys": list(factors).count(Authenticator.Type.WEBAUTHN),
    }
    return render(request, "account/overview.html", context)


@login_required
def profile(request: HttpRequest) -> HttpResponse:
    """Set the display name."""
    user = get_object_or_404(User, pk=request.user.pk)
    mine = Profile.objects.filter(user=user).first() or Profile(user=user)
    form = ProfileForm(request.POST or None, instance=mine)
    before = mine.display_name
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            name = form.save().display_name
            if name != before:
                words = f"from “{before}” to “{name}”"
                audit.note(user, "changed_name", user, detail={"words": words})
        messages.success(request, "Your profile is saved.")
        return redirect("account_profile")
    return render(request, "account/profile.html", {"form": form})


@method_decorator([never_cache, sensitive_post_parameters("password")], name="dispatch")
class ConfirmEmailView(AllauthConfirmEmailView):  # type: ignore[misc]
    """Verify an address, for whoever claimed it and for nobody else.

    A link in a mail is opened by the owner of the address, who need not be the one that claimed
    it: somebody else may have signed up with it, to own the account once the real owner confirms
    without thinking. So the link alone is not enough. It also takes the browser that signed up,
    or that is signed in, or else the password.
    """

    object: Any

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Ask before anything changes: mail scanners open links too."""
        return self._page(request)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Verify the address, and sign in where a sign-up waited for it."""
        if not self._find() or self._is_theirs(request):
            return self._finish(request, *args, **kwargs)
        form = self._form(request)
        if form is None or not form.is_valid():
            return self._page(request, form)
        if request.user.is_authenticated:
            self.logout()
        address = self.object.email_address
        if not self.object.confirm(request):
            return self._page(request)
        credentials = {"email": address.email, "password": form.cleaned_data["password"]}
        login = Login(user=address.user, email=address.email)
        response: HttpResponse = perform_password_login(request, credentials, login)
        return response

    def _finish(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response: HttpResponse = super().post(request, *args, **kwargs)
        except Http404:
            return self._page(request)
        return response

    def _find(self) -> bool:
        try:
            self.object = self.get_object()
        except Http404:
            self.object = None
        return self.object is not None

    def _is_theirs(self, request: HttpRequest) -> bool:
        """Whether this browser is signed in, or just signed up, as the one with the address."""
        owner = self.object.email_address.user_id
        if request.user.is_authenticated:
            return bool(request.user.pk == owner)
        stage = LoginStageController.enter(request, EmailVerificationStage.key)
        return bool(stage and stage.login.user and stage.login.user.pk == owner)

    def _form(self, request: HttpRequest) -> ConfirmForm | None:
        address = self.object.email_address
        if not address.user.has_usable_password():
            return None
        return ConfirmForm(
            request.POST or None, request=request, email=address.email, user=address.user
        )

    def _page(self, request: HttpRequest, form: ConfirmForm | None = None) -> HttpResponse:
        theirs = self._find() and self._is_theirs(request)
        context = self.get_context_data()
        if self.object and not theirs:
            context["form"] = form or self._form(request)
        response: HttpResponse = self.render_to_response({**context, "is_theirs": theirs})
        return response


confirm_email = ConfirmEmailView.as_view()
