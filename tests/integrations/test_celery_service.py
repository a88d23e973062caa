"""Celery at full size: 500 tasks that end well, fail, are cut short, or are killed."""

from __future__ import annotations

import secrets

import pytest

from poolproof.drill.services.broker import Broker, redis_server
from poolproof.drill.services.celery import serve
from poolproof.drill.service import MEASURES
from poolproof.drill.stage import Stage
from poolproof.drill.table import Table
from poolproof.drill.target import Target
from plugins.server import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FAULTS = [measure.field for measure in MEASURES if measure.is_fault]
