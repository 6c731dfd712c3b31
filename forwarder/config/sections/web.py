"""What is served over HTTP? ``[web]``."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from pydantic import BeforeValidator, model_validator

from forwarder.config import values
from forwarder.config.sections.listening import Tls
from forwarder.config.table import Table
from forwarder.config.values import Endpoint

__all__ = ["Web"]


class Web(Table):
    """What is served over HTTP: our own mailkey records. Nothing is, without ``listen``."""

    listen: Annotated[tuple[Endpoint, ...], BeforeValidator(values.split)] = ()
    tls: Tls = Tls()

    @model_validator(mode="after")
    def _clear_text_at_home(self) -> Web:
        for one in self.listen:
            if self.tls.cert is None and not ip_address(one.rpartition(":")[0].strip("[]")).is_loopback:
                raise ValueError(f"{one} needs web.tls.cert and web.tls.key; without them only loopback addresses")
        return self
