"""A machine with much hardware, as its kernel shows it below /proc and /sys; all invented.

A line that is not indented names a folder. Below it are its files, each a name and what it holds
(``\\n`` and ``\\t`` stand for themselves, a line feed is put at its end), and ``name -> target``
for links.
"""

from pathlib import Path

HWMON = r"""
sys/devices/platform/coretemp.0
    uevent DRIVER=coretemp\nMODALIAS=platform:coretemp
sys/devices/platform/coretemp.0/power
    control auto
sys/devices/platform/coretemp.0/hwmon/hwmon1
    device -> ../../../coretemp.0
    name coretemp
    temp1_crit 100000
    temp1_crit_alarm 0
    temp1_input 48000
    temp1_label Package id 0
    temp1_max 84000
    temp2_crit 100000
    temp2_crit_alarm 1
    temp2_input 45500
    temp2_label Core 0
    temp2_max 84000
    uevent \
sys/class/hwmon
    hwmon1 -> ../../devices/platform/coretemp.0/hwmon/hwmon1
    hwmon2 -> ../../devices/platform/nct6775.656/hwmon/hwmon2
    hwmon3 -> ../../devices/pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0/hwmon3
    hwmon4 -> ../../devices/virtual/hwmon/hwmon4
    hwmon5 -> ../../devices/pci0000:00/0000:00:01.0/0000:01:00.0/hwmon/hwmon5
    hwmon6 -> ../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00/hwmon/hwmon6
    hwmon7 -> ../../devices/pci0000:00/i2c-3/3-0040/hwmon/hwmon7
sys/devices/platform/nct6775.656/hwmon/hwmon2
    beep_enable 1
    cpu0_vid 1100
    device -> ../../../nct6775.656
    fan1_alarm 0
    fan1_beep 1
    fan1_input 1240
    fan1_label CPU Fan
    fan1_min 600
    fan1_pulses 2
    fan1_target 1300
    fan2_alarm 1
    fan2_input 0
    fan2_min 600
    in0_alarm 0
    in0_beep 0
    in0_input 872
    in0_max 1744
    in0_min 0
    in1_input 1016
    intrusion0_alarm 1
    intrusion0_beep 0
    name nct6798
    pwm1 128
    pwm1_auto_point1_pwm 76
    pwm1_auto_point1_temp 40000
    pwm1_enable 5
    temp1_input 33100
    temp1_label SYSTIN
    temp1_max 80000
    temp1_max_hyst 75000
    temp1_offset 0
    temp1_type 4
    temp7_fault 1
    update_interval 1500
    vrm 90
sys/devices/pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0
    address 0000:3c:00.0
    cntlid 4
    firmware_rev 3B2QGXA7
    model Example SSD 980 PRO 1TB
    serial S5P2NG0R500001
    state live
    transport pcie
sys/devices/pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0/hwmon3
    device -> ../../nvme0
    name nvme
    temp1_alarm 0
    temp1_crit 84850
    temp1_input 37850
    temp1_label Composite
    temp1_max 81850
    temp1_min -273150
    temp2_input 37850
    temp2_label Sensor 1
sys/devices/virtual/hwmon/hwmon4
    name nfsd-thermal
    temp1_input -5200
    humidity1_input 43250
sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/hwmon/hwmon5
    device -> ../../../0000:01:00.0
    fan1_enable 0
    fan1_input 890
    fan1_max 3300
    fan1_min 0
    in0_input 768
    in0_label vddgfx
    name amdgpu
    power1_average 11053000
    power1_cap 213000000
    power1_cap_max 234000000
    power1_label PPT
    temp1_emergency 115000
    temp1_input 41000
    temp1_label edge
sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00/hwmon/hwmon6
    device -> ../../../ACPI000D:00
    name power_meter
    power1_accuracy 5000000
    power1_alarm 0
    power1_average 187000000
    power1_average_interval 30000
    power1_average_interval_max 300000
    power1_average_interval_min 1000
    power1_is_battery 0
sys/devices/pci0000:00/i2c-3/3-0040/hwmon/hwmon7
    curr1_crit 12000
    curr1_crit_alarm 0
    curr1_input 3275
    device -> ../../../3-0040
    energy1_input 81234567890
    in1_input 12035
    in1_lcrit_alarm 0
    name ina238
    power1_input 39414625
"""

CLASSES = r"""
sys/class/thermal
    cooling_device0 -> ../../devices/virtual/thermal/cooling_device0
    cooling_device1 -> ../../devices/virtual/thermal/cooling_device1
    thermal_zone0 -> ../../devices/virtual/thermal/thermal_zone0
    thermal_zone10 -> ../../devices/virtual/thermal/thermal_zone10
sys/devices/virtual/thermal/cooling_device0
    cur_state 3
    max_state 10
    type Processor
sys/devices/virtual/thermal/cooling_device1
    cur_state 0
    max_state 1
    type Fan
sys/devices/virtual/thermal/thermal_zone0
    mode enabled
    policy step_wise
    temp 49925
    type acpitz
sys/devices/virtual/thermal/thermal_zone10
    mode enabled
    policy step_wise
    temp -8000
    type x86_pkg_temp
sys/class/power_supply
    AC -> ../../devices/LNXSYSTM:00/ACPI0003:00/power_supply/AC
    BAT0 -> ../../devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0
    ucsi-source-psy-1 -> ../../devices/platform/USBC000:00/power_supply/ucsi-source-psy-1
sys/devices/LNXSYSTM:00/ACPI0003:00/power_supply/AC
    online 1
    type Mains
    uevent POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=1
sys/devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0
    alarm 2420000
    capacity 81
    capacity_level Normal
    cycle_count 142
    energy_full 48390000
    energy_full_design 50100000
    energy_now 39250000
    manufacturer EXAMPLE
    model_name 02DL008
    power_now 4830000
    present 1
    serial_number  3090
    status Discharging
    technology Li-ion
    temp 297
    temp_alert_max 600
    time_to_empty_now 29220
    type Battery
    voltage_min_design 11580000
    voltage_now 12229000
sys/devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0/power
    control auto
sys/devices/platform/USBC000:00/power_supply/ucsi-source-psy-1
    charge_type Fast
    current_max 3000000
    current_now 1250000
    online 0
    scope Unknown
    type USB
    usb_type [C] PD PD_PPS
    voltage_max 20000000
    voltage_min 5000000
    voltage_now 5000000
sys/class/powercap
    intel-rapl -> ../../devices/virtual/powercap/intel-rapl
    intel-rapl:0 -> ../../devices/virtual/powercap/intel-rapl/intel-rapl:0
    intel-rapl:0:0 -> ../../devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0
    intel-rapl:0:1 -> ../../devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:1
    intel-rapl:1 -> ../../devices/virtual/powercap/intel-rapl/intel-rapl:1
    intel-rapl:1:0 -> ../../devices/virtual/powercap/intel-rapl/intel-rapl:1/intel-rapl:1:0
sys/devices/virtual/powercap/intel-rapl
    enabled 1
sys/devices/virtual/powercap/intel-rapl/intel-rapl:0
    energy_uj 240422366267
    max_energy_range_uj 262143328850
    name package-0
sys/devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0
    energy_uj 118821284256
    max_energy_range_uj 262143328850
    name core
sys/devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:1
    energy_uj 21118821284
    max_energy_range_uj 65712999613
    name dram
sys/devices/virtual/powercap/intel-rapl/intel-rapl:1
    energy_uj 1234567
    max_energy_range_uj 262143328850
    name package-1
sys/devices/virtual/powercap/intel-rapl/intel-rapl:1/intel-rapl:1:0
    energy_uj 0
    max_energy_range_uj 65712999613
    name dram
sys/class/nvme
    nvme0 -> ../../devices/pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0
sys/devices/pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0/nvme0n1
    nuse 1953525168
    size 1953525168
sys/devices/pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0/nvme0n1/queue
    logical_block_size 512
sys/class/scsi_tape
    nst0 -> ../../devices/pci0000:00/host7/scsi_tape/nst0
    nst0a -> ../../devices/pci0000:00/host7/scsi_tape/nst0a
    st0 -> ../../devices/pci0000:00/host7/scsi_tape/st0
    st0a -> ../../devices/pci0000:00/host7/scsi_tape/st0a
sys/devices/pci0000:00/host7/scsi_tape/nst0/stats
    in_flight 1
sys/devices/pci0000:00/host7/scsi_tape/nst0a/stats
    in_flight 1
sys/devices/pci0000:00/host7/scsi_tape/st0a/stats
    in_flight 1
sys/devices/pci0000:00/host7/scsi_tape/st0/stats
    in_flight 1
    io_ns 9247011087720
    other_cnt 1409
    read_byte_cnt 979383912
    read_cnt 3741
    read_ns 33788355744
    resid_cnt 19
    write_byte_cnt 1496246784000
    write_cnt 53772916
    write_ns 5233597394395
sys/class/fc_host
    host0 -> ../../devices/pci0000:00/0000:3b:00.0/host0/fc_host/host0
    host1 -> ../../devices/pci0000:00/0000:3b:00.1/host1/fc_host/host1
sys/devices/pci0000:00/0000:3b:00.0/host0/fc_host/host0
    dev_loss_tmo 30
    fabric_name 0x1000889471d9a001
    node_name 0x20000024ff3f91f8
    port_id 0x010d00
    port_name 0x21000024ff3f91f8
    port_state Online
    port_type NPort (fabric via point-to-point)
    speed 16 Gbit
    supported_classes Class 3
    supported_speeds 4 Gbit, 8 Gbit, 16 Gbit
    symbolic_name QLE2692 FW:v9.08.02 DVR:v10.02
sys/devices/pci0000:00/0000:3b:00.0/host0/fc_host/host0/statistics
    dumped_frames 0xffffffffffffffff
    error_frames 0x1
    fcp_packet_aborts 0x13
    invalid_crc_count 0x2
    invalid_tx_word_count 0x8
    link_failure_count 0x9
    loss_of_signal_count 0x11
    loss_of_sync_count 0x10
    nos_count 0x12
    reset_statistics \
    rx_frames 0x3
    rx_words 0x4000000001
    seconds_since_last_reset 0x7
    tx_frames 0x5
    tx_words 0x6
sys/devices/pci0000:00/0000:3b:00.1/host1/fc_host/host1
    dev_loss_tmo 30
    fabric_name 0x0
    node_name 0x20000024ff3f91f9
    port_id 0x000000
    port_name 0x21000024ff3f91f9
    port_state Unknown
    port_type Unknown
    speed unknown
    supported_classes Class 3
    supported_speeds 4 Gbit, 8 Gbit, 16 Gbit
    symbolic_name QLE2692 FW:v9.08.02 DVR:v10.02
sys/devices/pci0000:00/0000:3b:00.1/host1/fc_host/host1/statistics
    error_frames 0x0
    rx_frames 0x0
sys/class/infiniband
    mlx5_0 -> ../../devices/pci0000:00/0000:5e:00.0/infiniband/mlx5_0
sys/devices/pci0000:00/0000:5e:00.0/infiniband/mlx5_0
    board_id MT_0000000222
    fw_ver 20.31.1014
    hca_type MT4123
    node_guid 506b:4b03:005c:0000
sys/devices/pci0000:00/0000:5e:00.0/infiniband/mlx5_0/ports/1
    link_layer InfiniBand
    phys_state 5: LinkUp
    rate 100 Gb/sec (4X EDR)
    state 4: ACTIVE
sys/devices/pci0000:00/0000:5e:00.0/infiniband/mlx5_0/ports/1/counters
    VL15_dropped 1
    excessive_buffer_overrun_errors 2
    link_downed 3
    link_error_recovery 4
    local_link_integrity_errors 5
    multicast_rcv_packets 93
    multicast_xmit_packets 16
    port_rcv_constraint_errors 6
    port_rcv_data 4631917
    port_rcv_errors 7
    port_rcv_packets 6825908347
    port_rcv_remote_physical_errors 8
    port_rcv_switch_relay_errors 9
    port_xmit_constraint_errors 10
    port_xmit_data 3733440
    port_xmit_discards 11
    port_xmit_packets 6235865
    port_xmit_wait 4294967295
    symbol_error 12
    unicast_rcv_packets 61148
    unicast_xmit_packets 61239
sys/devices/pci0000:00/0000:5e:00.0/infiniband/mlx5_0/ports/1/counters_ext
    port_multicast_rcv_packets 93
    port_rcv_data_64 14631917
    port_xmit_packets_64 N/A (no PMA)
sys/class/net
    bond0 -> ../../devices/virtual/net/bond0
    bond1 -> ../../devices/virtual/net/bond1
    bonding_masters bond0 bond1
    eth0 -> ../../devices/pci0000:00/0000:02:00.0/net/eth0
    eth1 -> ../../devices/pci0000:00/0000:02:00.1/net/eth1
sys/devices/virtual/net/bond0
    lower_eth0 -> ../../../pci0000:00/0000:02:00.0/net/eth0
    lower_eth1 -> ../../../pci0000:00/0000:02:00.1/net/eth1
    mtu 9000
    operstate up
    flags 0x1403
sys/devices/virtual/net/bond0/bonding
    slaves eth0 eth1
sys/devices/virtual/net/bond1
    flags 0x1402
    operstate down
sys/devices/virtual/net/bond1/bonding
    slaves \
sys/devices/pci0000:00/0000:02:00.0/net/eth0
    address 02:00:00:00:00:01
    carrier 1
    flags 0x1903
    operstate up
    speed 25000
sys/devices/pci0000:00/0000:02:00.0/net/eth0/bonding_slave
    mii_status up
sys/devices/pci0000:00/0000:02:00.1/net/eth1
    address 02:00:00:00:00:01
    flags 0x1903
    operstate down
    speed -1
sys/devices/pci0000:00/0000:02:00.1/net/eth1/bonding_slave
    mii_status down
sys/class/drm
    card0 -> ../../devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/card0
    card0-DP-1 -> ../../devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/card0/card0-DP-1
    version drm 1.1.0 20060810
sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0
    gpu_busy_percent 4
    mem_info_gtt_total 8573157376
    mem_info_gtt_used 144560128
    mem_info_vis_vram_total 8573157376
    mem_info_vis_vram_used 1490378752
    mem_info_vram_total 8573157376
    mem_info_vram_used 1490378752
    mem_info_vram_vendor samsung
    power_dpm_force_performance_level manual
    uevent DRIVER=amdgpu\nPCI_CLASS=30000\nPCI_SLOT_NAME=0000:01:00.0
    unique_id 0123456789abcdef
sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/card0
    device -> ../../../0000:01:00.0
sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/card0/card0-DP-1
    status connected
"""

# What node_exporter 1.5 does not look at, or takes for something else.
NEWER = r"""
sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/hwmon/hwmon5
    freq1_input 500000000
    freq1_label sclk
    freq2_input 96000000
    freq2_label MCLK (mem)
sys/devices/pci0000:00/0000:5e:00.0/infiniband/mlx5_0/ports/1/hw_counters
    duplicate_request 41
    implied_nak_seq_err 42
    lifespan 10
    np_cnp_sent 43
    out_of_buffer 44
    rnr_nak_retry_err 45
    roce_slow_restart_trans 46
    rx_write_requests 47
sys/class/drm
    card1 -> ../../devices/pci0000:00/0000:00:02.0/drm/card1
sys/devices/pci0000:00/0000:00:02.0
    uevent DRIVER=i915\nPCI_CLASS=30000\nPCI_SLOT_NAME=0000:00:02.0
sys/devices/pci0000:00/0000:00:02.0/drm/card1
    device -> ../../../0000:00:02.0
sys/class/watchdog
    watchdog0 -> ../../devices/pci0000:00/iTCO_wdt.1.auto/watchdog/watchdog0
    watchdog1 -> ../../devices/virtual/watchdog/watchdog1
sys/devices/pci0000:00/iTCO_wdt.1.auto/watchdog/watchdog0
    bootstatus 0
    fw_version 4
    identity iTCO_wdt
    nowayout 0
    options 0x8180
    pretimeout 10
    pretimeout_governor panic
    state active
    status 0x8000
    timeleft 27
    timeout 30
sys/devices/virtual/watchdog/watchdog1
    identity Software Watchdog
    state inactive
    timeout 60
sys/devices/system/cpu/vulnerabilities
    itlb_multihit Unknown: Dependent on hypervisor status
    mds Vulnerable: Clear CPU buffers attempted, no microcode; SMT Host state unknown
    meltdown Not affected
    spectre_v2 Mitigation: Retpolines; IBPB: conditional; STIBP: disabled
    tsa Something else altogether
    srbds Vulnerable
sys/bus/pci/devices
    0000:00:1d.0 -> ../../../devices/pci0000:00/0000:00:1d.0
    0000:3c:00.0 -> ../../../devices/pci0000:00/0000:00:1d.0/0000:3c:00.0
sys/devices/pci0000:00/0000:00:1d.0
    class 0x060400
    d3cold_allowed 1
    device 0xa118
    numa_node -1
    power_state D0
    revision 0xf1
    subsystem_device 0x0000
    subsystem_vendor 0x0000
    vendor 0x8086
    current_link_speed Unknown
    current_link_width 0
    max_link_speed 8.0 GT/s PCIe
    max_link_width 4
sys/devices/pci0000:00/0000:00:1d.0/0000:3c:00.0
    class 0x010802
    current_link_speed 16.0 GT/s PCIe
    current_link_width 4
    d3cold_allowed 1
    device 0xa80a
    max_link_speed 16.0 GT/s PCIe
    max_link_width 4
    numa_node 1
    power_state D3hot
    revision 0x00
    sriov_drivers_autoprobe 1
    sriov_numvfs 2
    sriov_totalvfs 8
    sriov_vf_total_msix 16
    subsystem_device 0xa801
    subsystem_vendor 0x144d
    vendor 0x144d
"""

PROC = r"""
proc/net
    arp @arp
    udp @udp
    udp6 @udp6
    xfrm_stat @xfrm
proc/net/stat
    nf_conntrack @conntrack
proc/sys/net/netfilter
    nf_conntrack_count 123
    nf_conntrack_max 262144
proc
    softirqs @softirqs
"""

WHOLE = {
    "@arp": """\
IP address       HW type     Flags       HW address            Mask     Device
192.0.2.1        0x1         0x2         02:00:00:00:00:0a     *        eth0
192.0.2.17       0x1         0x0         00:00:00:00:00:00     *        eth0
198.51.100.4     0x1         0x6         02:00:00:00:00:0b     *        bond0
""",
    "@udp": f"""\
{
        "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"
        "  timeout inode ref pointer drops"
    :<127}
{
        "  237: 00000000:0044 00000000:0000 07 00000015:00000000 00:00000000 00000000     0"
        "        0 15003 2 0000000000000000 0"
    :<127}
{
        "  238: 0100007F:0323 00000000:0000 07 00000000:0000A3C0 00:00000000 00000000   101"
        "        0 15004 2 0000000000000000 17"
    :<127}
""",
    "@udp6": """\
  sl  local_address                         remote_address                        st tx_queue \
rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1611: 00000000000000000000000000000000:14E9 00000000000000000000000000000000:0000 07 \
00000001:00000200 00:00000000 00000000   108        0 19027 2 0000000000000000 0
""",
    "@conntrack": """\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop \
early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000007b  00000003 00000014 00000000 0000000a 000000ff 00000000 00000004 00000005 00000006 \
00000007 00000008 00000000  00000000 00000000 00000000 00000009
0000007b  00000000 00000001 00000000 00000002 00000100 00000000 00000004 00000000 00000000 \
00000000 00000000 00000000  00000000 00000000 00000000 00000001
""",
    "@softirqs": """\
                    CPU0       CPU2\x20\x20\x20\x20\x20\x20\x20
          HI:          3          1
       TIMER:   13450732   12876431
      NET_TX:      48713      31009
      NET_RX:    9348212    8123441
       BLOCK:     210345     201876
    IRQ_POLL:          0          0
     TASKLET:      10532       7201
       SCHED:   22104563   21987002
     HRTIMER:          0          0
         RCU:   15876123   14990001
""",
    "@xfrm": """\
XfrmInError             \t3
XfrmInBufferError       \t0
XfrmInHdrError          \t1
XfrmInNoStates          \t20
XfrmInStateProtoError   \t40
XfrmInTmplMismatch      \t5
XfrmInPolBlock          \t100
XfrmOutPolDead          \t7
XfrmFwdHdrError         \t6654
XfrmAcquireError        \t24532
XfrmInIptfsError        \t9
""",
}  # fmt: skip


def plant(root: Path, *texts: str) -> Path:
    """Write trees below a root, or all of them."""
    for text in texts or (HWMON, CLASSES, NEWER, PROC):
        folder = root
        for line in text.strip("\n").splitlines():
            if not line.startswith(" "):
                folder = root / line
                folder.mkdir(parents=True, exist_ok=True)
                continue
            name, _, value = line.strip().partition(" ")
            path = folder / name
            if value.startswith("-> "):
                path.symlink_to(value[3:])
            else:
                _write(path, value)
    return root


def _write(path: Path, value: str) -> None:
    if value in WHOLE:
        path.write_text(WHOLE[value])
    else:
        text = "" if value == "\\" else value.replace("\\n", "\n").replace("\\t", "\t")
        path.write_text(f"{text}\n")
