# SPDX-License-Identifier: AGPL-3.0-or-later
"""Classes of attachments: what is erasable, why it is kept, for how long, who may read it.

A payload field of one of the types below holds HMAC-SHA-256(salt, content); the entry carries
``[class, salt, content]`` for each such field that is not nil, in the order of the fields. No rule reads the content.
"""

from typing import Annotated, Final, Literal

import msgspec

YEAR_DAYS: Final = 366


class AttachmentClass(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every attachment of a class.

    Attributes:
        readers: ``members`` of the cooperative, the record's ``parties``, or ``officers`` (board and treasurer) and
            the parties.
        ground: legal ground of its keeping; texts are in the locale under ``ground.<ground>``.
        kept_days: how long the ground holds after the record; None: as long as the membership that it belongs to.
        is_erasable_early: whether the person may have it erased before.
    """

    readers: Literal["members", "officers", "parties"]
    ground: Literal["accounting", "contract", "statutes"]
    kept_days: int | None
    is_erasable_early: bool


CLASSES: Final[dict[str, AttachmentClass]] = {
    "description": AttachmentClass(readers="members", ground="statutes", kept_days=None, is_erasable_early=True),
    "identity": AttachmentClass(readers="officers", ground="contract", kept_days=None, is_erasable_early=True),
    "lines": AttachmentClass(readers="parties", ground="accounting", kept_days=10 * YEAR_DAYS, is_erasable_early=False),
    "memo": AttachmentClass(readers="parties", ground="contract", kept_days=10 * YEAR_DAYS, is_erasable_early=True),
    "payment": AttachmentClass(
        readers="parties", ground="accounting", kept_days=10 * YEAR_DAYS, is_erasable_early=False
    ),
    "question": AttachmentClass(readers="members", ground="statutes", kept_days=None, is_erasable_early=False),
    "reason": AttachmentClass(readers="members", ground="statutes", kept_days=None, is_erasable_early=True),
    "title": AttachmentClass(readers="members", ground="contract", kept_days=None, is_erasable_early=True),
}
"""Class name -> what holds for it."""

_SIZE: Final = 32
DescriptionCommitment = Annotated[
    bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "description"})
]
IdentityCommitment = Annotated[
    bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "identity"})
]
LinesCommitment = Annotated[bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "lines"})]
MemoCommitment = Annotated[bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "memo"})]
PaymentCommitment = Annotated[bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "payment"})]
QuestionCommitment = Annotated[
    bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "question"})
]
ReasonCommitment = Annotated[bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "reason"})]
TitleCommitment = Annotated[bytes, msgspec.Meta(min_length=_SIZE, max_length=_SIZE, extra={"attachment": "title"})]
