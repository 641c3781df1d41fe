# SPDX-License-Identifier: AGPL-3.0-or-later
"""The log itself as views: records, whom they concern, and the postings of every account."""
