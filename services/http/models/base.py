"""What all messages in JSON have in common: no unknown fields, no other types, one of a oneof."""

from __future__ import annotations

from typing import ClassVar, Self

import pydantic


class Message(pydantic.BaseModel):
    """A message of our protocol as JSON, under the names of its fields there."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    ONE_OF: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @pydantic.model_validator(mode="after")
    def _check_one_of(self) -> Self:
        for names in self.ONE_OF:
            given = [name for name in names if name in self.model_fields_set and getattr(self, name) is not None]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} are given; give one of them")
        return self
