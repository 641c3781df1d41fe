# SPDX-License-Identifier: AGPL-3.0-or-later
"""Shares: the register of movements, holdings, subscriptions."""
