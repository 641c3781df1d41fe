# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscriptions, periods, and what rights-holders earned."""
