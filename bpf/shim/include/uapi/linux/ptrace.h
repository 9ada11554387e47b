/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once
/* BCC includes it; the programs need nothing of it. */
