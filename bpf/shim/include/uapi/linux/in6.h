/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once
/* By its path: BCC also searches include/uapi, where <linux/in6.h> would be this file. */
#include "/usr/include/linux/in6.h"
