/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once
#define CONFIG_BPF_SYSCALL 1
#ifndef __KERNEL__
#define __KERNEL__
#endif
