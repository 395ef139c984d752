# First process of a node: `sh init.sh DIRECTORY NAME`, in namespaces of its own. Makes the node's view of the
# machine, then waits for ever: `wait` also takes the exit status of orphans.
set -e
dir=$1
hostname "$2"
mount --make-rshared /
# What the node changes of the machine's files stays in its directory; containers can't have layers on layers, so their
# root is a directory of its own.
mkdir -p "$dir/run" "$dir/containerd"
for tree in etc opt var; do
    mkdir -p "$dir/$tree" "$dir/$tree.work"
    mount -t overlay overlay -o "lowerdir=/$tree,upperdir=$dir/$tree,workdir=$dir/$tree.work" "/$tree"
done
mkdir -p /var/lib/containerd /var/lib/kubelet /etc/cni/net.d /etc/kubernetes/manifests /opt/cni/bin
mount --bind "$dir/containerd" /var/lib/containerd
mount -t bpf bpf /sys/fs/bpf
for plugin in host-local loopback portmap ptp; do
    cp "/usr/lib/cni/$plugin" /opt/cni/bin/
done
cp "$dir/10-pods.conflist" /etc/cni/net.d/
mkdir -p "$dir/run/netns" "$dir/run/lock"
touch "$dir/run/ready"
mount --bind "$dir/run" /run
while :; do
    sleep 1000000 &
    wait $! || true
done
