/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once
/* BCC asks for the version to choose between helpers; the programs use none that depends on it. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 6, 0)
