"""Addresses of the web pages and of the gateway."""

from django.urls import URLPattern, URLResolver, include, path

from workspaces import (
    audit_views,
    gateway_urls,
    plugin_views,
    team_views,
    token_views,
    views,
    webhook_views,
)

# The cloud pages. `new` can be no slug: it is reserved.
web: list[URLPattern] = [
    path("", views.home, name="home"),
    path("account/tokens/", token_views.tokens, name="account_tokens"),
    path("account/tokens/<int:token_id>/revoke/", token_views.revoke, name="account_token_revoke"),
    path("workspaces/", views.index, name="workspaces"),
    path("workspaces/new/", views.new, name="workspace_new"),
    path("workspaces/new/slug/", views.slug_field, name="workspace_slug"),
    path("workspaces/<slug:slug>/", views.detail, name="workspace"),
    path("workspaces/<slug:slug>/live/", views.live, name="workspace_live"),
    path("workspaces/<slug:slug>/start/", views.start, name="workspace_start"),
    path("workspaces/<slug:slug>/stop/", views.stop, name="workspace_stop"),
    path("workspaces/<slug:slug>/restart/", views.restart, name="workspace_restart"),
    path("workspaces/<slug:slug>/rename/", views.rename, name="workspace_rename"),
    path("workspaces/<slug:slug>/support/", views.support_access, name="workspace_support"),
    path("workspaces/<slug:slug>/delete/", views.delete, name="workspace_delete"),
    path("workspaces/<slug:slug>/undelete/", views.undelete, name="workspace_undelete"),
    path("workspaces/<slug:slug>/plugins/", plugin_views.plugins, name="workspace_plugins"),
    path("workspaces/<slug:slug>/plugins/apply/", plugin_views.apply, name="workspace_apply"),
    path("workspaces/<slug:slug>/plugins/live/", plugin_views.live, name="workspace_plugins_live"),
    path(
        "workspaces/<slug:slug>/plugins/roll-back/",
        plugin_views.roll_back,
        name="workspace_plugins_back",
    ),
    path(
        "workspaces/<slug:slug>/plugins/forget/",
        plugin_views.remove_secret,
        name="workspace_remove_secret",
    ),
    path("workspaces/<slug:slug>/webhooks/", webhook_views.index, name="workspace_webhooks"),
    path("workspaces/<slug:slug>/webhooks/add/", webhook_views.add, name="webhook_add"),
    path("workspaces/<slug:slug>/webhooks/<int:pk>/", webhook_views.detail, name="webhook"),
    path(
        "workspaces/<slug:slug>/webhooks/<int:pk>/change/",
        webhook_views.change,
        name="webhook_change",
    ),
    path(
        "workspaces/<slug:slug>/webhooks/<int:pk>/switch/",
        webhook_views.switch,
        name="webhook_switch",
    ),
    path("workspaces/<slug:slug>/webhooks/<int:pk>/test/", webhook_views.test, name="webhook_test"),
    path(
        "workspaces/<slug:slug>/webhooks/<int:pk>/rotate/",
        webhook_views.rotate,
        name="webhook_rotate",
    ),
    path(
        "workspaces/<slug:slug>/webhooks/<int:pk>/redeliver/",
        webhook_views.redeliver,
        name="webhook_redeliver",
    ),
    path(
        "workspaces/<slug:slug>/webhooks/<int:pk>/remove/",
        webhook_views.remove,
        name="webhook_remove",
    ),
    path("workspaces/<slug:slug>/members/", team_views.index, name="workspace_members"),
    path("workspaces/<slug:slug>/members/leave/", team_views.leave, name="workspace_leave"),
    path("workspaces/<slug:slug>/members/transfer/", team_views.transfer, name="workspace_hand"),
    path(
        "workspaces/<slug:slug>/members/<int:pk>/role/", team_views.change_role, name="member_role"
    ),
    path(
        "workspaces/<slug:slug>/members/<int:pk>/remove/", team_views.remove, name="member_remove"
    ),
    path("workspaces/<slug:slug>/invitations/add/", team_views.invite, name="workspace_invite"),
    path(
        "workspaces/<slug:slug>/invitations/<int:pk>/resend/",
        team_views.resend,
        name="invitation_resend",
    ),
    path(
        "workspaces/<slug:slug>/invitations/<int:pk>/withdraw/",
        team_views.withdraw,
        name="invitation_withdraw",
    ),
    path("workspaces/<slug:slug>/visibility/", team_views.visibility, name="workspace_visibility"),
    path(
        "workspaces/<slug:slug>/visibility/set/",
        team_views.set_visibility,
        name="workspace_set_visibility",
    ),
    path("invitations/<int:pk>/accept/", team_views.accept, name="invitation_accept"),
    # The router keeps this path out of its log: the token is a key.
    path("invitations/<slug:token>/", team_views.invitation, name="invitation"),
    path("workspaces/<slug:slug>/usage/", views.usage, name="workspace_usage"),
    path("workspaces/<slug:slug>/activity/", views.activity, name="workspace_activity"),
    path("workspaces/<slug:slug>/audit/", audit_views.page, name="workspace_audit"),
    path("workspaces/<slug:slug>/audit/export/", audit_views.export, name="workspace_audit_export"),
    path("workspaces/<slug:slug>/logs/", views.log, name="workspace_logs"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    *web,
    *gateway_urls.urlpatterns,
    path("api/v1/", include("workspaces.api.urls")),
]
