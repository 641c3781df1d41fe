# SPDX-License-Identifier: AGPL-3.0-or-later
"""The cooperative itself: statutes, offices, persons and their keys."""
