"""What customers are told of who did something: the names of our people are not theirs to know."""

from collections.abc import Collection

from accounts.models import User

# An operator as a customer sees one.
OPERATOR = "an operator"


def is_hidden(who: int | None, members: Collection[int] | None, *, by_operator: bool) -> bool:
    """Whether somebody who acted as an operator has neither name nor address here.

    `members` are the numbers of the users of a workspace, who know each other; None for operators,
    who are told everything.
    """
    return by_operator and members is not None and who not in members


def shown_name(user: User, members: Collection[int] | None) -> str:
    """Return what to call somebody; `members` as in `is_hidden`."""
    hidden = is_hidden(user.pk, members, by_operator=user.is_staff)
    return OPERATOR if hidden else user.display_name
