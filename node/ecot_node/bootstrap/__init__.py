# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the parts of a node are built and joined."""
